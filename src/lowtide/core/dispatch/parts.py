"""Long prompts in parts: which part of a request is the next call, and what follows from its end.

A part is a call with the beginning of the prompt and an answer of one token, which is thrown away:
it makes the engine read so far. It takes a place in the window like any call, and when it has ended
the request is the next of its chunk again. Called by core/dispatch/dispatch.py. Invariants: a part
is never an outcome of its request, nor an answer to learn from; a request of which a part failed is
sent whole from then on, so it fails only as a whole.
"""

from lowtide.core.capacity.prompt_parts import least_part
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.dispatch.verdict import Decision, Finish, OutcomeRules
from lowtide.core.faults.outcome import Outcome, Rejected, Succeeded
from lowtide.core.faults.streamed_answer import STREAMED_ENDPOINTS


def watched(request: Request, replica: Replica) -> bool:
    """Whether it is worth seeing, and can be seen, when its prompt is read."""
    return replica.watches and request.run.lease.endpoint in STREAMED_ENDPOINTS


def fits(request: Request, replica: Replica, now_s: float) -> bool:
    """Whether the request may be sent now, whole or a part of it; `request.part` then says which.
    What was read at another replica is not read here.
    """
    request.part = None
    if request.tokens_read and request.read_at != replica.name:
        request.tokens_read = request.tokens_cached = 0
        request.was_part_aborted = False
    controller = replica.controller
    if controller is None or not controller.pacer.active:  # as for all without live traffic
        return True
    left = max(1, request.unread_tokens)
    least = least_part(request.tokens)
    has_fault = request.goes_whole or request.has_failed or request.was_cut
    if has_fault or replica.failing_since_s is not None or not watched(request, replica):
        least = left  # in one part, so whole
    size = controller.pacer.size_to_send(left, least, now_s)
    if 0 < size < left:
        request.part = request.tokens_read + size
    return size >= left or request.part is not None


def token_came(request: Request, replica: Replica, now_s: float) -> bool:
    """Records a further token of a watched call. True: a step of the engine has ended, so the next
    part may follow.
    """
    if replica.controller is None or not replica.controller.pacer.parts.is_active(now_s):
        return False
    return replica.controller.pacer.parts.token_seen(id(request), now_s)


def settle_part(
    request: Request,
    replica: Replica,
    outcome: Outcome | None,
    judge: OutcomeRules,
    now_s: float,
    draw: float,
) -> Decision | None:
    """What follows from the end of a part. `outcome` None: it was not sent, as the prompt cannot be
    cut. The request waits as that decision says; None: it may go on at once.
    """
    read, request.part = request.part, None
    if outcome is None or isinstance(outcome, Succeeded | Rejected):
        replica.ended()
        replica.suspects.ended(request)
        if outcome is not None:
            replica.answered(now_s)
        if isinstance(outcome, Succeeded) and read is not None:
            _was_read(request, replica, outcome, read)
        else:
            request.goes_whole = True
        if isinstance(outcome, Rejected) and replica.controller is not None:
            replica.controller.pacer.parts.was_refused(now_s)
        return None
    request.goes_whole = True
    decision = judge.settle(request, replica, outcome, now_s, draw)
    return None if isinstance(decision, Finish) else decision


def _was_read(request: Request, replica: Replica, outcome: Succeeded, read: int) -> None:
    usage = outcome.usage
    had = request.tokens_read if request.was_part_aborted else usage.cached_tokens
    request.tokens_cached += max(0, usage.input_tokens - min(had, usage.cached_tokens))
    request.tokens_read, request.read_at = read, replica.name
    request.yields, request.was_part_aborted = 0, False
    if replica.controller is not None:
        replica.controller.pacer.parts.was_read()
