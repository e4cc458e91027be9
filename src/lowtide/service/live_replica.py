"""A replica as the interactive door uses it, and one call to it.

The door has connections of its own to each engine, beside the window: batch work cannot take them,
and live calls do not count in the window. Both share the replica's circuit breaker, so that what
one of them learns about an engine's health spares the other.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from lowtide import limits
from lowtide.core.replica import Replica
from lowtide.core.signals import LiveSeen
from lowtide.ports.clock import Clock
from lowtide.ports.engine import StreamingEngine


class LiveReplica:
    """`engine_names` maps model ids to the engine's names; `timeout_s` bounds each silence."""

    def __init__(
        self,
        replica: Replica,
        engine: StreamingEngine,
        engine_names: Mapping[str, str],
        drop_fields: frozenset[str],
        timeout_s: float,
    ) -> None:
        self.replica = replica
        self.engine = engine
        self.engine_names = engine_names
        self.drop_fields = drop_fields
        self.timeout_s = timeout_s
        self.in_flight = 0
        self.on_asked: Callable[[int, float], None] = lambda *_: None
        """Told of each call before it is sent: its prompt's tokens, monotonic seconds. The control
        loop takes batch prompts out of its way."""
        self._unbegun: dict[LiveCall, float] = {}  # calls without a first byte; oldest first
        self._tokens_each = float(limits.LIVE_CALL_TOKENS)

    @property
    def load(self) -> float:
        """Live and batch calls in flight, as a share of what the replica is said to hold."""
        return (self.in_flight + self.replica.in_flight) / self.replica.holds

    def seen(self, now_s: float, patience_s: float) -> LiveSeen:
        """For the guard: how many calls there are, and how many have waited longer than that.

        Only of a stream does one see when it begins; the others count as in flight alone.
        """
        waiting = 0
        for call, since_s in self._unbegun.items():
            if now_s - since_s <= patience_s:
                break
            waiting += call.streams
        return LiveSeen(self.in_flight, waiting, self._tokens_each)

    def entered(self, call: "LiveCall", now_s: float) -> None:
        """A call is about to be sent."""
        self.on_asked(call.input_tokens, now_s)
        self.in_flight += 1
        self._unbegun[call] = now_s
        if call.tokens:
            self._tokens_each += limits.LIVE_CALL_WEIGHT * (call.tokens - self._tokens_each)

    def begun(self, call: "LiveCall", now_s: float) -> None:
        """Its first byte has come, or never will."""
        if self._unbegun.pop(call, None) is not None:
            self.replica.live_answered(call.input_tokens, now_s)

    @property
    def is_full(self) -> bool:
        return self.in_flight >= limits.LIVE_IN_FLIGHT_MAX


class LiveCall:
    """One call: counted in flight while its context lasts, and what it told of the engine."""

    def __init__(
        self,
        live: LiveReplica,
        clock: Clock,
        *,
        input_tokens: int = 0,
        tokens: int = 0,
        streams: bool = False,
    ) -> None:
        """`input_tokens` of its prompt, `tokens` with the longest answer, both as estimated."""
        self.input_tokens = input_tokens
        self.tokens = tokens
        self.streams = streams
        self._live = live
        self._clock = clock
        self._is_told = False

    def __enter__(self) -> Self:
        self._live.entered(self, self._clock.monotonic())
        self._live.replica.circuit.sent()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.in_flight -= 1
        self._live.begun(self, self._clock.monotonic())
        if not self._is_told:
            self._live.replica.circuit.abandoned()

    def succeeded(self) -> None:
        """The engine answered as an engine should; a refusal of the request is an answer, too."""
        self._is_told = True
        now_s = self._clock.monotonic()
        self._live.begun(self, now_s)
        self._live.replica.circuit.succeeded(now_s)

    def failed(self, why: str) -> None:
        """No answer, half an answer, or a 5xx."""
        self._is_told = True
        self._live.replica.circuit.failed(self._clock.monotonic(), why)
