"""Which requests may have killed an engine, and how the one that did is found.

When an engine dies, every call in flight is cut, and one of them may be why. They become suspects,
and run again in companies of half as many: if the engine dies again, its company is halved again,
until the culprit is the only suspect in flight. That crash is counted against it; the last one that
is needed counts only if the request ran alone. A suspect that succeeds is finished, and so cleared.

Most deaths are restarts, and no request's fault. Two signs tell them: no connection comes about
afterwards (`pardon`: those cut for the first time are none), or a call that was in flight at that
instant succeeds all the same (`acquit`: the engine lives, something between it and Lowtide cuts
calls). Cuts of different calls at one age are a balancer's (`Cuts.age_s`).

Pure; each core/dispatch/replica.py `Replica` has one `Suspects`, and core/dispatch/dispatch.py asks
it. Invariant: no request is failed for a crash that another one caused, and a cut of a call that
was sent while the replica was failing already says nothing about its request.
"""

from collections import deque
from itertools import pairwise
from typing import Protocol

from lowtide import limits


class Suspect(Protocol):
    """What is remembered of a request. `company`: how many suspects may be in flight with it,
    itself counted; 0: it is none. `was_pardoned`: the next cut counts. `crash_count`: crashes
    that are known to be its own. `is_suspect_in_flight`: it was sent as one, and is counted until
    that call ends, whatever it is by then: the replica where it was cut may clear it meanwhile.
    """

    company: int
    was_pardoned: bool
    crash_count: int
    is_suspect_in_flight: bool
    tries: int


class Suspects:
    """The suspects in flight at one replica, and how many may be."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._bound = 0
        self._fresh: list[Suspect] = []
        self._death: tuple[int, int] | None = None  # calls and suspects in flight when it died
        self._was_away = False

    def admits(self, request: Suspect) -> bool:
        """Whether the request may join the suspects in flight."""
        if not self.in_flight:
            return True
        return self.in_flight < min(self._bound, request.company)

    def started(self, request: Suspect) -> None:
        """Counts a request that is in flight now; `ended` must follow."""
        self._bound = min(self._bound, request.company) if self.in_flight else request.company
        self.in_flight += 1
        request.is_suspect_in_flight = True

    def ended(self, request: Suspect) -> None:
        """Records that the request's call is over; does nothing if it was not sent as a suspect."""
        if request.is_suspect_in_flight:
            request.is_suspect_in_flight = False
            self.in_flight -= 1

    def cut(self, request: Suspect, calls_in_flight: int) -> None:
        """Records that the request's call was cut. The first since `settled` tells how many calls
        there were at that instant.
        """
        if self._death is None:
            self._death = (calls_in_flight, self.in_flight)
        calls, suspects = self._death
        self.ended(request)
        if request.company:
            if suspects <= 1:
                request.crash_count += 1
            request.company = max(1, min(request.company, suspects // 2))
            return
        request.company = max(1, calls // 2)
        self._fresh.append(request)
        if self._was_away:
            self.pardon()

    def pardon(self) -> None:
        """Clears those cut for the first time: the engine was stopped or
        restarted, which cut its calls.
        """
        self._was_away = True
        for request in self._fresh:
            if not request.was_pardoned:
                request.was_pardoned = True
                request.company = 0
        self._fresh.clear()

    def settled(self) -> None:
        """Records that the engine answers again: later cuts belong to another death."""
        self._fresh.clear()
        self._death = None
        self._was_away = False

    def acquit(self) -> list[Suspect]:
        """Clears the suspects, because the engine lives: each was cut for itself."""
        cleared, self._fresh = self._fresh, []
        for request in cleared:
            request.company = 0
        return cleared


class Cuts:
    """The ages at which calls were cut: many at one age, at different
    times, are a balancer's rule.
    """

    def __init__(self) -> None:
        self.age_s: float | None = None
        """Seconds that something before the engine, such as a balancer, grants a
        call; None: no such rule.
        """
        self._last: deque[tuple[float, float]] = deque(maxlen=limits.CUTS_REMEMBERED)

    def add(self, age_s: float, now_s: float) -> bool:
        """Records the cut of a call of that age. Returns whether it belongs to such a rule."""
        if age_s < limits.CUT_AGE_S_MIN:
            return False
        self._last.append((age_s, now_s))
        alike = [at_s for age, at_s in self._last if abs(age - age_s) <= _slack_s(age_s)]
        instants = 1 + sum(later - earlier > _slack_s(age_s) for earlier, later in pairwise(alike))
        if instants >= limits.CUTS_ALIKE_MIN:
            self.age_s = age_s
        return self.age_s is not None and abs(self.age_s - age_s) <= _slack_s(age_s)

    def outlived(self, age_s: float) -> None:
        """Drops the rule if a call took longer than it would grant."""
        if self.age_s is not None and age_s > self.age_s + _slack_s(self.age_s):
            self.age_s = None
            self._last.clear()


def _slack_s(age_s: float) -> float:
    return max(limits.CUT_AGE_SLACK_S, limits.CUT_AGE_SLACK * age_s)
