"""Engines and a gateway's policy in virtual time: a day of eight replicas in minutes.

A discrete-event loop. Arrivals are interactive requests at known instants; everything else is the
policy's: it is told of first tokens, ends and steps, is polled at a fixed interval, and submits and
aborts through the world. Events at one instant come in the order in which they were scheduled, so a
run is a function of its inputs.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lowtide.engine_sim.engine import SimEngine, StepEvents
from lowtide.engine_sim.state.requests import SimRequest


@dataclass(frozen=True, slots=True)
class Arrival:
    """An interactive request. `replica` None: the policy's `on_arrival` chooses."""

    at: float
    request: SimRequest
    replica: int | None = None


class GatewayPolicy:
    """The policy of a gateway. Override what is needed; each method may use the world freely.

    The requests of all calls are as the engine left them: `first_token_at`, `made`, and so on.
    """

    def holds_work(self) -> bool:
        """Whether the policy keeps requests back and is to be polled even if
        nothing else happens.
        """
        return False

    def on_start(self, world: "VirtualWorld") -> None:
        """Called before the first arrival, at time 0."""

    def on_arrival(self, world: "VirtualWorld", request: SimRequest) -> None:
        """Called for an interactive request that no replica was named for. The default takes the
        least loaded one.
        """
        loads = [engine.running + engine.waiting for engine in world.engines]
        world.submit(loads.index(min(loads)), request)

    def on_step(self, world: "VirtualWorld", replica: int, events: StepEvents) -> None:
        """Called when a step ended: for each request that decoded in it, its duration is the gap
        between tokens. Called before the calls for its first tokens and finished requests.
        """

    def on_first_token(self, world: "VirtualWorld", replica: int, request: SimRequest) -> None:
        """Called when the prompt is computed."""

    def on_finished(self, world: "VirtualWorld", replica: int, request: SimRequest) -> None:
        """Called when all tokens are there."""

    def on_poll(self, world: "VirtualWorld") -> None:
        """Called every `poll_s`: reads the engines' gauges and counters."""

    def on_lost(self, world: "VirtualWorld", replica: int, requests: Sequence[SimRequest]) -> None:
        """Called when a replica crashed with these requests."""


class VirtualWorld:
    """`now` is the virtual time in seconds. Not for use after `run` returned."""

    def __init__(
        self,
        engines: Sequence[SimEngine],
        policy: GatewayPolicy,
        arrivals: Iterable[Arrival] = (),
        *,
        poll_s: float | None = 0.5,
    ) -> None:
        """`arrivals` in order of time; an iterator is read one ahead."""
        self.engines = list(engines)
        self.now = 0.0
        self._policy = policy
        self._arrivals: Iterator[Arrival] = iter(arrivals)
        self._poll_s = poll_s
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._polls = 0
        self._down: set[int] = set()
        self._epochs = [0] * len(self.engines)

    def run(self, until: float = math.inf) -> float:
        """Runs until `until`, or until only polls are left that the policy does not wait for.
        Returns the time that it became. Call it once.
        """
        self._schedule(0.0, lambda: self._policy.on_start(self))
        self._next_arrival()
        self._next_poll()
        while len(self._events) > self._polls or (self._polls and self._policy.holds_work()):
            at, _, event = self._events[0]
            if at > until:
                self.now = until
                break
            heapq.heappop(self._events)
            self.now = at
            event()
        return self.now

    def submit(self, replica: int, request: SimRequest) -> None:
        """Gives a request to an engine; it takes part from that engine's next step.

        Raises ValueError as `SimEngine.submit`, and ConnectionError while the replica is down."""
        if replica in self._down:
            raise ConnectionError(f"replica {replica} is down")
        engine = self.engines[replica]
        engine.submit(request, self.now)
        if not engine.is_stepping:
            self._wake(replica)

    def abort(self, replica: int, request_id: str | int) -> SimRequest | None:
        """Takes a request back; nothing more is said about it. None when it has ended already."""
        return self.engines[replica].abort(request_id)

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Calls at an instant, which is not before `now`."""
        self._schedule(max(time, self.now), call)

    def crash(self, replica: int, down_s: float) -> None:
        """Crashes an engine with its requests and its cache; it is back empty after a while."""
        lost = self.engines[replica].crash()
        self._epochs[replica] += 1
        self._down.add(replica)
        self.at(self.now + down_s, lambda: self._down.discard(replica))
        self._policy.on_lost(self, replica, lost)

    def is_down(self, replica: int) -> bool:
        return replica in self._down

    def _schedule(self, time: float, call: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, call))

    def _next_arrival(self) -> None:
        arrival = next(self._arrivals, None)
        if arrival is not None:
            self._schedule(arrival.at, lambda: self._arrive(arrival))

    def _arrive(self, arrival: Arrival) -> None:
        if arrival.replica is None:
            self._policy.on_arrival(self, arrival.request)
        else:
            self.submit(arrival.replica, arrival.request)
        self._next_arrival()

    def _next_poll(self) -> None:
        if self._poll_s is not None:
            self._polls += 1
            self._schedule(self.now + self._poll_s, self._poll)

    def _poll(self) -> None:
        self._polls -= 1
        self._policy.on_poll(self)
        self._next_poll()

    def _wake(self, replica: int) -> None:
        """Begins a step once all that happens at this instant has happened."""
        epoch = self._epochs[replica]
        self._schedule(self.now, lambda: self._begin(replica, epoch))

    def _begin(self, replica: int, epoch: int) -> None:
        engine = self.engines[replica]
        if epoch != self._epochs[replica] or engine.is_stepping:
            return
        duration = engine.begin_step(self.now)
        if duration is not None:
            self._schedule(self.now + duration, lambda: self._end(replica, epoch))

    def _end(self, replica: int, epoch: int) -> None:
        if epoch != self._epochs[replica]:
            return  # it crashed meanwhile
        policy = self._policy
        events = self.engines[replica].end_step()
        policy.on_step(self, replica, events)
        for request in events.first_tokens:
            policy.on_first_token(self, replica, request)
        for request in events.finished:
            policy.on_finished(self, replica, request)
        if not self.engines[replica].is_stepping:
            self._begin(replica, epoch)
