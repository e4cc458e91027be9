"""A replica as the live API uses it, and one call to it.

The HTTP API has connections of its own to each engine, beside the window: batch work cannot take
them, and live calls do not count in the window. Both share the replica's circuit breaker and its
scopes (core/faults/scope.py), so that what one of them learns about an engine spares the other; but
a live call is never held up by a doubt that the lines of a batch gave rise to.
"""

from collections.abc import Callable, Mapping
from typing import Final, Self

from lowtide import limits
from lowtide.core.bodies.body_rules import BodyRules
from lowtide.core.capacity.engine_metrics import LiveSeen
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.verdict import heard_live
from lowtide.core.faults.fault import FAULTS
from lowtide.core.faults.outcome import Failed, Interrupted, Outcome, Succeeded
from lowtide.core.faults.scope import Scope
from lowtide.core.history.replica_history import first_byte_bucket
from lowtide.core.scheduling.byte_budget import ByteBudget
from lowtide.core.usage import NO_USAGE
from lowtide.ports.clock import Clock
from lowtide.ports.engine import StreamingEngine


class LiveReplica:
    """`engine_names` maps model ids to the engine's names; `timeout_s` bounds each silence."""

    def __init__(
        self,
        replica: Replica,
        engine: StreamingEngine,
        engine_names: Mapping[str, str],
        rules: BodyRules,
        timeout_s: float,
    ) -> None:
        self.replica = replica
        self.engine = engine
        self.engine_names = engine_names
        self.rules = rules
        self.timeout_s = timeout_s
        self.places = ByteBudget(limits.LIVE_IN_FLIGHT_MAX)
        """Places of calls in flight, by organization."""
        self._on_asked: Callable[[int, float], None] = lambda *_: None
        self._before_first_byte: dict[LiveCall, float] = {}  # when each was sent; oldest first
        self._tokens_each = float(limits.LIVE_CALL_TOKENS)
        self.first_bytes: dict[int, int] = {}
        """Streams that began, by the bucket of their time to the first byte."""

    def when_asked(self, record: Callable[[int, float], None]) -> None:
        """Has `record` called before each call is sent: its prompt's tokens, monotonic seconds. The
        control loop then makes room for it.
        """
        self._on_asked = record

    def adopt(self, fresh: "LiveReplica") -> None:
        """Takes over the engine and settings of `fresh`, for the next call on; calls in
        flight end as begun.
        """
        self.engine = fresh.engine
        self.engine_names = fresh.engine_names
        self.rules = fresh.rules
        self.timeout_s = fresh.timeout_s

    @property
    def in_flight(self) -> int:
        """Live calls that wait for an answer or are getting one."""
        return self.places.held

    @property
    def load(self) -> float:
        """Live and batch calls in flight, as a share of what the replica is said to hold."""
        return (self.in_flight + self.replica.in_flight) / self.replica.assumed_capacity

    def live_load(self, now_s: float, patience_s: float) -> LiveSeen:
        """The live load for the preemption policy: calls in flight, and calls that have waited
        longer than `patience_s`.

        Only a stream shows when it begins; other calls never count as waiting.
        """
        waiting = 0
        for call, since_s in self._before_first_byte.items():
            if now_s - since_s <= patience_s:
                break
            waiting += call.streams
        return LiveSeen(self.in_flight, waiting, self._tokens_each)

    def call_started(self, call: "LiveCall", now_s: float) -> None:
        """Counts a call that is about to be sent."""
        self._on_asked(call.input_tokens, now_s)
        self.places.take(call.organization_id, 1)
        self._before_first_byte[call] = now_s
        if call.tokens:
            self._tokens_each += limits.LIVE_CALL_WEIGHT * (call.tokens - self._tokens_each)

    def first_byte(self, call: "LiveCall", now_s: float) -> None:
        """Marks the call as no longer waiting: the first byte arrived, or the call
        ended without one.
        """
        if self._before_first_byte.pop(call, None) is not None:
            self.replica.live_answered(call.input_tokens, now_s)

    def first_byte_after(self, seconds: float) -> None:
        """Counts a stream that began after so long."""
        bucket = first_byte_bucket(seconds)
        self.first_bytes[bucket] = self.first_bytes.get(bucket, 0) + 1

    def left(self, call: "LiveCall", now_s: float) -> None:
        """Stops counting a call that is over."""
        self.places.give_back(call.organization_id, 1)
        self.first_byte(call, now_s)

    def has_place(self, organization_id: str) -> bool:
        """Whether one more call of the organization may be sent."""
        return self.places.fits(organization_id, 1)


class LiveCall:
    """One call, counted in flight while its context lasts; it reports to the replica what it
    shows of the engine.
    """

    def __init__(
        self,
        live: LiveReplica,
        clock: Clock,
        scope: Scope,
        *,
        organization_id: str = "",
        input_tokens: int = 0,
        tokens: int = 0,
        streams: bool = False,
    ) -> None:
        """`organization_id` has a place there. `input_tokens` of its prompt, `tokens` with the
        longest answer, both as estimated."""
        self.organization_id = organization_id
        self.input_tokens = input_tokens
        self.tokens = tokens
        self.streams = streams
        self._live = live
        self._clock = clock
        self._scope = scope
        self.endpoint = scope.endpoint
        self._sent_at_s = 0.0
        self._has_metrics = False

    def __enter__(self) -> Self:
        self._sent_at_s = self._clock.monotonic()
        self._live.call_started(self, self._sent_at_s)
        self._live.replica.circuit.sent()
        if self._scope.held is not None:
            self._scope.live_trial(self._sent_at_s)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.left(self, self._clock.monotonic())
        if not self._has_metrics:
            self._live.replica.circuit.abandoned()

    def first_byte(self) -> None:
        """Records that a stream has begun: the engine answers as it should."""
        self._live.first_byte_after(self._clock.monotonic() - self._sent_at_s)
        self.came_to(STREAM_BEGUN)

    def came_to(self, outcome: Outcome) -> None:
        """Records the outcome and tells the replica; the call no longer waits for a first byte."""
        self._has_metrics = True
        now_s, live = self._clock.monotonic(), self._live
        if not isinstance(outcome, Interrupted | Failed):
            live.first_byte(self, now_s)
        heard_live(live.replica, self._scope, outcome, self._sent_at_s, now_s)

    def refuted(self, outcome: Failed) -> None:
        """Records that another replica has answered the request that this one
        refused: it is at fault.
        """
        if FAULTS[outcome.kind].blame == "set-up":
            self._scope.hold(outcome.kind, outcome.detail, self._clock.monotonic())


STREAM_BEGUN: Final = Succeeded(200, b"", NO_USAGE)
