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

    @property
    def load(self) -> float:
        """Live and batch calls in flight, as a share of what the replica is said to hold."""
        return (self.in_flight + self.replica.in_flight) / self.replica.window_max

    @property
    def is_full(self) -> bool:
        return self.in_flight >= limits.LIVE_IN_FLIGHT_MAX


class LiveCall:
    """One call: counted in flight while its context lasts, and what it told of the engine."""

    def __init__(self, live: LiveReplica, clock: Clock) -> None:
        self._live = live
        self._clock = clock
        self._is_told = False

    def __enter__(self) -> Self:
        self._live.in_flight += 1
        self._live.replica.circuit.sent()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.in_flight -= 1
        if not self._is_told:
            self._live.replica.circuit.abandoned()

    def succeeded(self) -> None:
        """The engine answered as an engine should; a refusal of the request is an answer, too."""
        self._is_told = True
        self._live.replica.circuit.succeeded(self._clock.monotonic())

    def failed(self, why: str) -> None:
        """No answer, half an answer, or a 5xx."""
        self._is_told = True
        self._live.replica.circuit.failed(self._clock.monotonic(), why)
