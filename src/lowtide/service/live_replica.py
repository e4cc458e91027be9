"""A replica as the interactive door uses it, and one call to it.

The door has connections of its own to each engine, beside the window: batch work cannot take them,
and live calls do not count in the window. Both share the replica's circuit breaker, so that what
one of them learns about an engine's health spares the other.
"""

from collections.abc import Mapping
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
        self._unbegun: dict[LiveCall, float] = {}  # streams without a first byte; oldest first
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
        for begun_s in self._unbegun.values():
            if now_s - begun_s <= patience_s:
                break
            waiting += 1
        return LiveSeen(self.in_flight, waiting, self._tokens_each)

    def entered(self, call: "LiveCall", now_s: float, *, tokens: int, streams: bool) -> None:
        """A call is sent; `tokens` is what it may hold, prompt and answer."""
        self.in_flight += 1
        if tokens:
            self._tokens_each += limits.LIVE_CALL_WEIGHT * (tokens - self._tokens_each)
        if streams:
            self._unbegun[call] = now_s

    def begun(self, call: "LiveCall") -> None:
        """Its first byte has come, or never will."""
        self._unbegun.pop(call, None)

    @property
    def is_full(self) -> bool:
        return self.in_flight >= limits.LIVE_IN_FLIGHT_MAX


class LiveCall:
    """One call: counted in flight while its context lasts, and what it told of the engine."""

    def __init__(
        self, live: LiveReplica, clock: Clock, *, tokens: int = 0, streams: bool = False
    ) -> None:
        self._live = live
        self._clock = clock
        self._tokens = tokens
        self._streams = streams
        self._is_told = False

    def __enter__(self) -> Self:
        now_s = self._clock.monotonic()
        self._live.entered(self, now_s, tokens=self._tokens, streams=self._streams)
        self._live.replica.circuit.sent()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.in_flight -= 1
        self._live.begun(self)
        if not self._is_told:
            self._live.replica.circuit.abandoned()

    def succeeded(self) -> None:
        """The engine answered as an engine should; a refusal of the request is an answer, too."""
        self._is_told = True
        self._live.begun(self)
        self._live.replica.circuit.succeeded(self._clock.monotonic())

    def failed(self, why: str) -> None:
        """No answer, half an answer, or a 5xx."""
        self._is_told = True
        self._live.replica.circuit.failed(self._clock.monotonic(), why)
