"""One call to one replica: the answer or the stream of events, and what came of it.

Called by service/live/live.py, which chooses the replicas, and read by the API's live routes, which
pass the stream on. Invariant: the replica is told the outcome of each call once it is over.
"""

from collections.abc import Sequence

import msgspec

from lowtide import limits
from lowtide.core.bodies.sse import EventStream, error_event
from lowtide.core.errors import LowtideError
from lowtide.core.faults.outcome import (
    Failed,
    Interrupted,
    NoReply,
    Outcome,
    Rejected,
    Reply,
    Succeeded,
    Throttled,
    classify,
)
from lowtide.core.live.live import LiveAnswer, LiveRequest, answer_of, no_answer
from lowtide.ports.engine import ReplyStream
from lowtide.service.live.live_replica import LiveCall, LiveReplica


class LiveStream:
    """An answer that comes as events. `read` gives whole events, and b"" at the end."""

    def __init__(self, reply: ReplyStream, call: LiveCall) -> None:
        self.status = reply.status
        self.content_type = reply.content_type
        self._reply = reply
        self._call = call
        self._events = EventStream()
        self._first = b""
        self._is_over = False

    async def begin(self) -> NoReply | None:
        """Waits for the first events; what came instead, while no client has seen any of it."""
        while not self._first and not self._is_over:
            block = await self._reply.read()
            if isinstance(block, NoReply):
                return block
            self._is_over = not block
            self._first = self._events.feed(block) if block else self._events.finish()
        return None

    async def read(self) -> bytes:
        """The next events. A stream that breaks ends with an event that says so."""
        whole, self._first = self._first, b""
        while not whole and not self._is_over:
            block = await self._reply.read()
            if isinstance(block, NoReply):
                self._is_over = True
                self._call.came_to(classify(block, self._call.endpoint))
                return error_event(f"The engine broke off: {block.detail}", "engine_error")
            self._is_over = not block
            whole = self._events.feed(block) if block else self._events.finish()
        return whole

    def tokens_used(self, request: LiveRequest) -> int:
        """What the engine reported, else an estimate: engines send about a token an event."""
        usage = self._events.usage()
        if usage is not None:
            return usage.total_tokens
        return request.input_tokens + min(request.output_tokens, self._events.events)


class LiveAttempt(msgspec.Struct, frozen=True, eq=False):
    """What one replica made of the call. `answer` None: there is nothing to pass on."""

    live: LiveReplica
    call: LiveCall
    outcome: Outcome
    answer: LiveAnswer | LiveStream | None

    @property
    def is_good(self) -> bool:
        return isinstance(self.outcome, Succeeded)

    @property
    def is_broken(self) -> bool:
        """Whether the engine may have died of the call."""
        return isinstance(self.outcome, Failed) and self.outcome.kind == "cut"

    @property
    def is_worth_another(self) -> bool:
        """Whether another replica may do better: this one is full, ill or not set up right."""
        match self.outcome:
            case Succeeded() | Rejected() | Failed(kind="timeout"):
                return False
            case _:
                return True


def refute(tried: Sequence[LiveAttempt]) -> None:
    """Tells the replicas that refused a request that another one has answered it:
    they are at fault.
    """
    for each in tried:
        if isinstance(each.outcome, Failed):
            each.call.refuted(each.outcome)


def whole_answer(
    live: LiveReplica,
    call: LiveCall,
    attempt: Reply | NoReply,
    content_type: str = "application/json",
) -> LiveAttempt:
    """Tells the replica the outcome of a call that is over. Returns the answer for the client."""
    outcome = classify(attempt, call.endpoint)
    call.came_to(outcome)
    answer: LiveAnswer | None = None
    if isinstance(attempt, Reply):
        answer = answer_of(attempt, content_type)
        if isinstance(outcome, Succeeded):
            answer = LiveAnswer(attempt.status, content_type, outcome.body)
        elif isinstance(outcome, Failed) and attempt.status < 300:
            answer = no_answer(outcome.detail)
    return LiveAttempt(live, call, outcome, answer)


def busy(message: str, wait_s: int) -> LowtideError:
    """The refusal of a call that no replica takes now; `wait_s`: seconds until one may."""
    return LowtideError("model_unavailable", message, "model", retry_after_s=wait_s)


def why_failed(outcome: Outcome) -> LowtideError:
    """The error for the client of a call that ended so, and has no answer to pass on."""
    match outcome:
        case Failed(kind="timeout", detail=detail):
            return LowtideError("engine_timeout", f"The engine did not answer: {detail}.")
        case Interrupted(detail=detail):
            message = f"No replica of this model answers: {detail}."
            return busy(message, limits.UNAVAILABLE_RETRY_AFTER_S)
        case Failed(detail=detail) | Rejected(message=detail) | Throttled(detail=detail):
            return LowtideError("engine_error", f"The engine gave no answer: {detail}.")
        case _:
            raise AssertionError("a success is passed on")
