"""Which trial call a replica is to get now, and what follows from its answer.

Pure; loops/dispatch/trials.py sends them. A trial is for a scope (core/faults/scope.py) of which
something is to be judged, or it shows whether a failing replica works again.
core/dispatch/dispatch.py begins those of replicas that it sends batch calls to; `LiveTrials` those
that a process knows from live calls alone. Invariant: what `begin_trial` gave is counted as under
way until `end_trial`.
"""

from collections.abc import Callable

from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.verdict import tried
from lowtide.core.faults.outcome import Outcome
from lowtide.core.faults.scope import Scope

Pending = Callable[[Replica], Scope | None]
"""The scope of a request that waits for that replica; None: nothing does."""


def begin_trial(replica: Replica, now_s: float, pending: Pending = lambda _: None) -> Scope | None:
    """The scope that a trial call is to be sent for now, counted as under way.

    Either something is to be judged there, or the replica is failing: then for what waits, or
    else for what was answered last.
    """
    if not replica.circuit.admits(now_s):
        return None
    scope = next((s for s in replica.scopes.values() if _is_due(s.trial_at_s, now_s)), None)
    if scope is None and _is_due(replica.trial_at_s, now_s):
        scope = pending(replica) or max(
            replica.scopes.values(), key=lambda scope: scope.answered_at_s, default=None
        )
    if scope is None:
        return None
    replica.trial_started()
    scope.trial_sent(now_s)
    return scope


def end_trial(replica: Replica, scope: Scope, outcome: Outcome | None, now_s: float) -> None:
    """Records the outcome of a trial call; None: this process aborted it."""
    replica.trial_ended()
    if outcome is not None:
        tried(replica, scope, outcome, now_s)
        return
    replica.circuit.abandoned()
    scope.trial_unclear(now_s)


class LiveTrials:
    """Trial calls for replicas to which no dispatcher of this process sends calls: it has none, or
    another worker owns the replica. Their live calls fail too, and only this process sees it.
    """

    def __init__(self, *, is_alone: bool) -> None:
        """`is_alone`: no dispatcher runs in this process."""
        self._is_alone = is_alone

    def trial(self, replica: Replica, now_s: float) -> Scope | None:
        """Begins a trial call, as `begin_trial` does; None when none is
        due, or `may_try` is False.
        """
        if not self.may_try(replica, now_s):
            return None
        replica.ask_for_trial(now_s)
        return begin_trial(replica, now_s)

    def may_try(self, replica: Replica, now_s: float) -> bool:
        """Whether this class, not a dispatcher of this process, sends the trial
        calls of the replica now.
        """
        return self._is_alone or now_s >= replica.owned_until_s

    def trial_ended(
        self, replica: Replica, scope: Scope, outcome: Outcome | None, now_s: float
    ) -> None:
        """Records the outcome of a trial call, as `end_trial` does."""
        end_trial(replica, scope, outcome, now_s)


def _is_due(at_s: float | None, now_s: float) -> bool:
    return at_s is not None and at_s <= now_s
