"""What an attempt's outcome means for its request and its replica.

Pure; core/dispatch/dispatch.py asks for each batch call and keeps the requests that wait, and
service/live/live_replica.py reports live calls. A request is finished, tried again, or in doubt:
then it waits for what shows whose fault its failure was (core/dispatch/doubts.py). Invariant: a try
is charged only for a failure that was the request's own, since the replica did well afterwards. So
no request loses a try while an engine is away, however long.
"""

from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.dispatch.doubts import Doubt, Doubts
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.faults.fault import FAULTS
from lowtide.core.faults.outcome import (
    Failed,
    Interrupted,
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    final_failure,
)
from lowtide.core.faults.scope import Scope


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The request is settled with this final outcome."""

    outcome: Succeeded | Rejected


class TryAgain(msgspec.Struct, frozen=True):
    """The request waits in the core until `at_s`; nothing is to be recorded."""

    at_s: float


class InDoubt(msgspec.Struct, frozen=True):
    """The request waits in the core until it is known whose fault its failure was."""


Decision = Finish | TryAgain | InDoubt

IN_DOUBT: Final = InDoubt()

CUT_BY_RULE: Final = (
    "something between Lowtide and the engine, as a proxy or a balancer, ends calls of this age;"
    " its time-out has to be longer than the longest call"
)


class OutcomeRules:
    """Decides what follows from each outcome and keeps the requests in doubt; one per worker."""

    def __init__(self, attempts_max: int) -> None:
        self._attempts_max = attempts_max
        self.doubts: Doubts[Request] = Doubts()

    def settle(
        self, request: Request, replica: Replica, outcome: Outcome, now_s: float, draw: float
    ) -> Decision:
        """Decides what follows from the end of a call; `draw` is
        uniform in [0, 1), for back-off.
        """
        if isinstance(outcome, Succeeded):
            return self._after_success(request, replica, outcome, now_s)
        match outcome:
            case Rejected():
                _ended(request, replica)
                replica.answered(now_s)
                return Finish(outcome)
            case Throttled(detail=detail, retry_after_s=after):
                _ended(request, replica)
                replica.throttled(now_s, after, detail)
                request.throttles += 1
                return again(now_s, draw, min(request.throttles, limits.THROTTLE_STEPS_MAX), after)
            case Interrupted(detail=detail, kind=kind):
                _ended(request, replica)
                replica.is_away(detail, now_s, kind)
                return again(now_s, 0.0, 0, None)
            case Failed(kind="cut" | "gateway"):
                return self._after_cut(request, replica, outcome, now_s, draw)
            case Failed(kind="timeout") if not replica.timeouts.is_own(
                request.tokens, request.sent_at_s, request.timeouts
            ):
                return _after_our_queue(request, replica, outcome, now_s, draw)
            case Failed():
                return self._after_failure(request, replica, outcome, now_s, draw)

    def decided(self, now_s: float) -> list[tuple[Request, TryAgain]]:
        """The requests of which it is now known whose fault their failure was."""
        return [(doubt.request, self._go_on(doubt, now_s)) for doubt in self.doubts.decided(now_s)]

    # -- inside ------------------------------------------------------------------------------------

    def _after_success(
        self, request: Request, replica: Replica, outcome: Succeeded, now_s: float
    ) -> Finish:
        replica.ended()
        if request.is_suspect_in_flight:
            replica.suspects.ended(request)
        replica.scope(request.run.scope_key).succeeded(request.sent_at_s, now_s)
        if replica.failing_since_s is not None:
            _engine_lives(request, replica)
        if replica.cuts.age_s is not None:
            replica.cuts.outlived(now_s - request.sent_at_s)
        replica.answered(now_s)
        replica.learn(outcome.usage, request.tokens, request.sent_at_s, now_s)
        return Finish(outcome)

    def _after_failure(
        self, request: Request, replica: Replica, outcome: Failed, now_s: float, draw: float
    ) -> Decision:
        """Puts a request in doubt that failed in a way that may be its own: what its
        scope does next will show.
        """
        _ended(request, replica)
        scope = replica.scope(request.run.scope_key)
        is_refusal = FAULTS[outcome.kind].blame == "set-up"
        failures = request.refusals if is_refusal else request.tries
        bound = min(self._attempts_max, limits.REFUSALS_MAX) if is_refusal else self._attempts_max
        if failures >= max(1, bound - 1) and scope.held is None:
            _shows_life(replica, outcome, now_s)
            return Finish(final_failure(outcome))
        heard(replica, scope, outcome, now_s, is_first=not request.has_failed)
        request.has_failed = True
        self.doubts.add(Doubt(request, replica, scope, outcome, request.sent_at_s, now_s, draw))
        return IN_DOUBT

    def _go_on(self, doubt: Doubt[Request], now_s: float) -> TryAgain:
        request = doubt.request
        if not doubt.is_own:
            return again(now_s, 0.0, 0, None)
        if FAULTS[doubt.outcome.kind].blame == "set-up":
            request.refusals += 1
            return again(now_s, 0.0, 0, None)
        return _retry(request, doubt.replica, doubt.outcome, now_s, doubt.draw)

    def _after_cut(
        self, request: Request, replica: Replica, outcome: Failed, now_s: float, draw: float
    ) -> Decision:
        """Decides after the connection ended unanswered, or a proxy's own did."""
        request.has_failed = True
        since_s = replica.failing_since_s
        if since_s is not None and request.sent_at_s > since_s:
            # That a failing replica fails still says nothing of the request.
            _ended(request, replica)
            replica.is_away(outcome.detail, now_s, outcome.kind)
            return again(now_s, draw, 1, outcome.retry_after_s)
        if replica.cuts.add(now_s - request.sent_at_s, now_s):
            _ended(request, replica)
            request.company = request.crash_count = 0
            return self._after_rule(request, replica, outcome, now_s, draw)
        replica.suspects.cut(request, replica.in_flight)
        replica.ended()
        replica.is_lost(outcome.detail, now_s, outcome.kind)
        if request.crash_count >= limits.CRASH_COUNT_MAX:
            return Finish(_killer(outcome))
        if request.tries >= self._attempts_max:
            return Finish(final_failure(outcome))
        return again(now_s, draw, request.crash_count, outcome.retry_after_s)

    def _after_rule(
        self, request: Request, replica: Replica, outcome: Failed, now_s: float, draw: float
    ) -> Decision:
        """Decides after a cut that every call of this age gets: no fault of the engine's."""
        if replica.name not in request.cut_at:
            request.cut_at = (*request.cut_at, replica.name)
        if replica.circuit.state == "half_open":
            replica.circuit.failed(now_s, outcome.detail, outcome.kind)
        if request.tries + 1 < self._attempts_max:
            return _retry(request, replica, outcome, now_s, draw)
        detail = f"{outcome.detail}. After {replica.cuts.age_s:.0f} s, as others: {CUT_BY_RULE}"
        return Finish(Rejected("engine_error", detail, outcome.status, outcome.body))


def _after_our_queue(
    request: Request, replica: Replica, outcome: Failed, now_s: float, draw: float
) -> TryAgain:
    """Retries a call that timed out behind other batch calls: no try is charged, and the window
    becomes smaller. A replica that gave no answer meanwhile may be unhealthy.
    """
    _ended(request, replica)
    if replica.timeouts.is_silent_since(request.sent_at_s):
        replica.circuit.failed(now_s, outcome.detail, outcome.kind)
    request.timeouts += 1
    replica.timed_out(request.sent_at_s, now_s)
    return again(now_s, draw, request.timeouts, None)


def heard_live(
    replica: Replica, scope: Scope, outcome: Outcome, sent_at_s: float, now_s: float
) -> None:
    """Records what a live call tells of its replica. Its refusals for lack of
    room pause no batch call.
    """
    match outcome:
        case Succeeded():
            scope.succeeded(sent_at_s, now_s)
            replica.is_alive(now_s)
        case Rejected() | Throttled():
            replica.is_alive(now_s)
        case Interrupted(detail=detail, kind=kind):
            replica.is_away(detail, now_s, kind)
        case Failed(kind="cut" | "gateway" as kind, detail=detail):
            replica.is_lost(detail, now_s, kind)
        case Failed():
            heard(replica, scope, outcome, now_s, is_first=True)


def heard(replica: Replica, scope: Scope, outcome: Failed, now_s: float, *, is_first: bool) -> None:
    """Records that a call of that scope, whoever sent it, failed in a way that may be its own."""
    _shows_life(replica, outcome, now_s)
    others = replica.in_flight > 0
    scope.failed(outcome.kind, outcome.detail, now_s, is_first=is_first, others=others)


def _shows_life(replica: Replica, outcome: Failed, now_s: float) -> None:
    if outcome.kind not in ("timeout", "proxy_timeout"):
        replica.is_alive(now_s)  # something answers there
    elif replica.circuit.state == "half_open":
        replica.circuit.failed(now_s, outcome.detail, outcome.kind)


def tried(replica: Replica, scope: Scope, outcome: Outcome, now_s: float) -> None:
    """Records the outcome of a trial call. A refusal that names its content
    comes from a working engine.
    """
    match outcome:
        case Succeeded() | Rejected():
            replica.is_alive(now_s)
            scope.trial_succeeded(now_s)
        case Throttled(detail=detail, retry_after_s=after):
            replica.throttled(now_s, after, detail)
            scope.trial_unclear(now_s)
        case Interrupted(detail=detail, kind=kind):
            replica.is_away(detail, now_s, kind)
            scope.trial_unclear(now_s)
        case Failed(kind="cut" | "gateway" as kind, detail=detail):
            replica.is_away(detail, now_s, kind)
            scope.trial_unclear(now_s)
        case Failed(kind=kind, detail=detail):
            _shows_life(replica, outcome, now_s)
            scope.trial_failed(kind, detail, now_s)


def again(now_s: float, draw: float, step: int, after_s: float | None) -> TryAgain:
    """Tries again after a back-off, or later if the engine said so, within a bound."""
    return TryAgain(now_s + max(backoff_s(step, draw), min(after_s or 0.0, limits.BACKOFF_CAP_S)))


def backoff_s(step: int, draw: float) -> float:
    """Full jitter: uniform in [0, base * 2^step], capped. Step 0 means at once."""
    if step <= 0:
        return 0.0
    return draw * min(limits.BACKOFF_CAP_S, limits.BACKOFF_BASE_S * 2.0 ** min(step, 32))


def _retry(
    request: Request, replica: Replica, outcome: Failed, now_s: float, draw: float
) -> TryAgain:
    """Charges one more failure to the request and tries again.

    Beyond the budget, retries are spread over a longer time; but the engine is well, as others of
    the scope have shown, so not over so long a one.
    """
    request.tries += 1
    step = request.tries if replica.budget.spend() else limits.RETRY_SPREAD_STEPS
    return again(now_s, draw, step, outcome.retry_after_s)


def _ended(request: Request, replica: Replica) -> None:
    replica.ended()
    replica.suspects.ended(request)


def _engine_lives(request: Request, replica: Replica) -> None:
    """Records a call that succeeded after others were cut. Had it been in flight at that instant,
    the engine did not die: those were cut each for itself, which counts as a try.
    """
    if replica.failing_since_s is not None and request.sent_at_s <= replica.failing_since_s:
        for cleared in replica.suspects.acquit():
            cleared.tries += 1


def _killer(outcome: Failed) -> Rejected:
    """The final outcome of a request that an engine died of, time and again."""
    if outcome.status is not None:
        return final_failure(outcome)  # a proxy spoke for the engine: its words
    return Rejected("engine_crash", f"the engine died of it: {outcome.detail}")
