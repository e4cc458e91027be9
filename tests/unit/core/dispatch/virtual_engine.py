"""Plays the dispatch core against engines in virtual time: no clock, no loop, no network.

An engine is a function of the request (None: a trial call) and of the instant at which it is asked;
it answers with seconds and an outcome. `cut` ends what is in flight, as an engine's death does.
"""

import heapq
import itertools
from collections.abc import Callable
from random import Random

from dispatch_cases import DIED, OK

from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.dispatch.verdict import Finish
from lowtide.core.faults.outcome import Outcome, Rejected, Succeeded
from lowtide.core.faults.scope import Scope

Engine = Callable[[Request | None, float], tuple[float, Outcome]]
STEPS_MAX = 400_000


class Play:
    """`ended` are final outcomes by (batch, line), `ended_at_s` their instants; `calls` and
    `trials` count what the engines were asked; `preempted` are calls that lost their places.
    """

    def __init__(self, core: Dispatch, engines: dict[Replica, Engine], seed: int = 0) -> None:
        self.core = core
        self.engines = engines
        self.now_s = 0.0
        self.ended: dict[tuple[str, int], Succeeded | Rejected] = {}
        self.ended_at_s: dict[tuple[str, int], float] = {}
        self.calls = 0
        self.trials = 0
        self.peak_suspects = 0
        self.preempted: list[Request] = []
        self._random = Random(seed)
        self._order = itertools.count()
        self._flying: list[tuple[float, int, Replica, Request | Scope, Outcome]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), do))

    def cut(self, replica: Replica, outcome: Outcome = DIED) -> None:
        """Everything in flight there ends now, in any order."""
        mine = [flight for flight in self._flying if flight[2] is replica]
        self._flying = [flight for flight in self._flying if flight[2] is not replica]
        heapq.heapify(self._flying)
        self._random.shuffle(mine)
        for flight in mine:
            self._end(flight[2], flight[3], outcome)

    def run(self, until_s: float = float("inf")) -> "Play":
        """Until everything has ended, or until that instant."""
        for _ in range(STEPS_MAX):
            self._send()
            if not any(run.unfinished for run in self.core.runs.values()) and not self._events:
                return self
            wake_s = self.core.next_wake_s(list(self.engines), self.now_s)
            times = [wake_s] if wake_s is not None else []
            times += [self._flying[0][0]] if self._flying else []
            times += [self._events[0][0]] if self._events else []
            assert times, "work is left and nothing will ever start it"
            if min(times) > until_s:
                self.now_s = until_s
                return self
            self.now_s = max(self.now_s, min(times))
            if self._events and self._events[0][0] <= self.now_s:
                heapq.heappop(self._events)[2]()
            elif self._flying and self._flying[0][0] <= self.now_s:
                _, _, replica, what, outcome = heapq.heappop(self._flying)
                self._end(replica, what, outcome)
        raise AssertionError("it does not end")

    def last_of(self, batch: str) -> float:
        """When the batch's last request ended."""
        return max(at_s for (name, _), at_s in self.ended_at_s.items() if name == batch)

    def failed(self) -> set[tuple[str, int]]:
        return {key for key, outcome in self.ended.items() if isinstance(outcome, Rejected)}

    def _send(self) -> None:
        for replica, engine in self.engines.items():
            self._preempt(replica)
            while (request := self.core.take(replica, self.now_s)) is not None:
                self.calls += 1
                self._fly(replica, request, *engine(request, self.now_s))
            while (scope := self.core.trial(replica, self.now_s)) is not None:
                self.trials += 1
                self._fly(replica, scope, *engine(None, self.now_s))
            self.peak_suspects = max(self.peak_suspects, replica.suspects.in_flight)

    def _preempt(self, replica: Replica) -> None:
        mine = [flight for flight in self._flying if flight[2] is replica]
        calls = [what for *_, what, _ in mine if isinstance(what, Request)]
        for request in self.core.preempt(replica, lambda: calls, self.now_s):
            self._flying = [flight for flight in self._flying if flight[3] is not request]
            heapq.heapify(self._flying)
            self.core.abandon(request, replica, self.now_s)
            self.core.put_back(request)
            self.preempted.append(request)

    def _fly(
        self, replica: Replica, what: Request | Scope, seconds: float, outcome: Outcome
    ) -> None:
        flight = (self.now_s + seconds, next(self._order), replica, what, outcome)
        heapq.heappush(self._flying, flight)

    def _end(self, replica: Replica, what: Request | Scope, outcome: Outcome) -> None:
        if isinstance(what, Scope):
            self.core.trial_ended(replica, what, outcome, self.now_s)
            return
        decision = self.core.settle(what, replica, outcome, self.now_s, self._random.random())
        if isinstance(decision, Finish):
            key = (what.run.key.batch_id, what.line)
            assert key not in self.ended, "finished twice"
            self.ended[key], self.ended_at_s[key] = decision.outcome, self.now_s


TRIAL_S = 0.05


def well(seconds: float) -> Engine:
    """An engine that answers everything in that time, and a single token sooner."""
    return lambda request, _now_s: (seconds if request is not None else TRIAL_S, OK)
