"""One attempt at one request: line in, engine's answer as an outcome, output line out.

Where the engine understands it, the body gets the priority that puts batch work behind live calls
(ports/engine.py). An engine that was restarted without that refuses it: then the request goes out
once more without, and so do all after it. A call that core.dispatch.dispatch marks as watched is
streamed if its answer can be (core/faults/streamed_answer.py); an engine whose stream does not tell
the whole answer is sent the request again, and asked for no more streams. A part of a prompt
(core/dispatch/parts.py) is a call of its own, whose answer is thrown away. Invariant: nothing is
sent again to a replica that went to another worker meanwhile.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec

from lowtide import limits
from lowtide.core.ascii_json import one_line
from lowtide.core.batches.line import (
    LineFormatError,
    RequestLine,
    output_line_id,
    read_request,
    render_rejected,
    render_success,
)
from lowtide.core.batches.segment import Finished
from lowtide.core.bodies.body_rules import NO_FIELDS, BodyRules
from lowtide.core.bodies.prompt_part import (
    ANSWER_FIELDS,
    PART_FIELDS,
    cut_prompt,
    without_own_cache,
)
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request, cannot_watch
from lowtide.core.faults.outcome import (
    Attempt,
    NoReply,
    Outcome,
    Rejected,
    Reply,
    Succeeded,
    classify,
    error_message,
)
from lowtide.core.faults.scope import Scope
from lowtide.core.faults.streamed_answer import STREAM_FIELDS, is_plain
from lowtide.core.faults.trial_call import trial_body
from lowtide.core.scheduling.reply_budget import ReplyBudget
from lowtide.loops.dispatch.watched import post_watched
from lowtide.ports.engine import Engine, StreamingEngine
from lowtide.service.off_loop import off_loop
from lowtide.service.reply_memory import ReplyMemory


class Upstream(msgspec.Struct, eq=False):
    """A replica with what it takes to call it. `engine_names` maps model ids to the engine's
    names. loops/replicas/replica_set.py exchanges the parts: each attempt goes by those of its
    beginning.
    """

    replica: Replica
    engine: Engine
    engine_names: Mapping[str, str]
    rules: BodyRules
    timeout_s: float
    streaming: StreamingEngine | None = None
    """The same engine, where it may be asked for streams."""
    replies: ReplyBudget = msgspec.field(default_factory=ReplyBudget)
    """The memory budget of long streamed answers, shared by the whole process."""


Made = TypeVar("Made")
OnToken = Callable[[Upstream, Request], None]


class OwnershipLostError(Exception):
    """The request would have to be sent again, but this worker does not own its
    replica any more.
    """


async def attempt(
    upstream: Upstream,
    request: Request,
    on_token: OnToken = lambda *_: None,
    monotonic: Callable[[], float] = lambda: 0.0,
) -> tuple[str, Outcome]:
    """Sends the request once. Returns its custom_id and the outcome.

    `on_token` is called with the tokens of a watched call; `monotonic` gives a clock's seconds.
    Raises OwnershipLostError.
    """
    lease = request.run.lease
    priority, fields = upstream.replica.priority, _priority_field(upstream)
    try:
        if len(request.data) <= limits.LARGE_BODY_BYTES:
            line, body = read_request(request.data), b""
        else:
            line, body = await _beside(request, len(request.data), _read, upstream, request, fields)
            _check_owned(upstream, monotonic)
        answer = None
        if request.prefill_done is False:
            answer = await _send_watched(upstream, request, line, fields, on_token)
            _check_owned(upstream, monotonic)
        if answer is None:
            answer = await upstream.engine.post(
                lease.endpoint.removeprefix("/v1"),
                body or _body(upstream, request, line, fields),
                upstream.timeout_s,
                lease.organization_id,
            )
        if priority is not None and _refuses(answer, "priorit"):
            _check_owned(upstream, monotonic)
            answer = await _send_without_priority(upstream, request, line, priority)
    except LineFormatError as error:
        return "", Rejected("invalid_json_line", str(error))
    if isinstance(answer, NoReply):
        if answer.kind == "timeout":
            answer = _name_setting(answer, upstream.timeout_s)
    elif (size := len(answer.body)) > limits.LARGE_BODY_BYTES:
        judged = _beside(request, size, _outcome_of_large, request, answer)
        return line.custom_id, await judged
    return line.custom_id, classify(_of_user(request, answer), lease.endpoint)


async def attempt_part(
    upstream: Upstream, request: Request, monotonic: Callable[[], float] = lambda: 0.0
) -> Outcome | None:
    """Has the engine read the part of its prompt that `request.part` ends. Returns what came of it;
    None: the prompt cannot be cut, and nothing was sent. Raises OwnershipLostError.
    """
    if len(request.data) <= limits.LARGE_BODY_BYTES:
        body = _part_body(upstream, request)
    else:
        body = await _beside(request, len(request.data), _part_body, upstream, request)
        _check_owned(upstream, monotonic)
    if body is None:
        return None
    lease = request.run.lease
    answer = await upstream.engine.post(
        _path(request), body, upstream.timeout_s, lease.organization_id
    )
    return classify(answer, lease.endpoint)


def _part_body(upstream: Upstream, request: Request) -> bytes | None:
    if request.part is None or upstream.streaming is None:
        return None
    try:
        line = read_request(request.data)
        cut = cut_prompt(line.body, request.part / max(1, request.tokens))
        if cut is None:
            return None
        fields = {**_priority_field(upstream), **PART_FIELDS}
        part = RequestLine(line.custom_id, cut)
        return _body(upstream, request, part, fields, without=ANSWER_FIELDS)
    except LineFormatError:
        return None  # the whole call will say so


def _priority_field(upstream: Upstream) -> Mapping[str, object]:
    priority = upstream.replica.priority
    return NO_FIELDS if priority is None else {"priority": priority}


def _of_user(request: Request, answer: Attempt) -> Attempt:
    """The answer as if its prompt had not been read in parts."""
    if not (request.tokens_cached or request.was_part_aborted):
        return answer
    if not isinstance(answer, Reply) or answer.status >= 300:
        return answer
    own = request.tokens_cached + request.was_part_aborted * request.unread_tokens
    body = without_own_cache(answer.body, own)
    return Reply(answer.status, body, answer.retry_after_s)


def _beside(
    request: Request, size: int, function: Callable[..., Made], *args: Any
) -> Awaitable[Made]:
    """Runs the work in a thread: on large bodies it would keep the loop from all other work."""
    return off_loop(request.run.lease.organization_id, size, function, *args)


def _read(
    upstream: Upstream, request: Request, fields: Mapping[str, object]
) -> tuple[RequestLine, bytes]:
    """The line, and the body to send. Raises LineFormatError."""
    line = read_request(request.data)
    return line, _body(upstream, request, line, fields)


def _outcome_of_large(request: Request, answer: Reply) -> Outcome:
    """The outcome of a large answer, with its body as result lines have it, so that no work is
    left for the loop.
    """
    outcome = classify(_of_user(request, answer), request.run.lease.endpoint)
    if isinstance(outcome, Succeeded):
        return msgspec.structs.replace(outcome, body=one_line(outcome.body))
    return outcome


async def _send_watched(
    upstream: Upstream,
    request: Request,
    line: RequestLine,
    fields: Mapping[str, object],
    on_token: OnToken,
) -> Attempt | None:
    """Sends a request for a stream; None: it is to be sent again for a whole answer."""
    if upstream.streaming is None or not is_plain(line.body):
        cannot_watch(request, upstream.replica)
        return None
    with ReplyMemory(upstream.replies, request.run.lease.organization_id) as memory:
        answer = await post_watched(
            upstream.streaming,
            _path(request),
            _body(upstream, request, line, {**STREAM_FIELDS, **fields}),
            upstream.timeout_s,
            partial(on_token, upstream, request),
            memory,
        )
    if answer is None or _refuses(answer, "stream"):
        upstream.replica.stop_streams()
        return None
    return answer


async def _send_without_priority(
    upstream: Upstream, request: Request, line: RequestLine, refused: int
) -> Attempt:
    """Sends the request without the priority that the engine refused; if that succeeds, none is
    sent to it again.
    """
    replica = upstream.replica
    body = _body(upstream, request, line, NO_FIELDS, without=frozenset({"priority"}))
    owner = request.run.lease.organization_id
    answer = await upstream.engine.post(_path(request), body, upstream.timeout_s, owner)
    if isinstance(answer, Reply) and answer.status < 300 and replica.priority == refused:
        replica.forget_priority()
    return answer


def _check_owned(upstream: Upstream, monotonic: Callable[[], float]) -> None:
    if monotonic() >= upstream.replica.owned_until_s:
        raise OwnershipLostError(upstream.replica.name)


def _name_setting(late: NoReply, timeout_s: float) -> NoReply:
    """Names the setting behind a time-out, and where it stands, in the outcome's detail."""
    where = f"attempt_timeout_s is {timeout_s:g} s, under [dispatch] or in the engine's [[replica]]"
    return NoReply("timeout", f"{late.detail}; {where}")


async def attempt_trial(upstream: Upstream, scope: Scope) -> Outcome:
    """The outcome of the smallest call to that endpoint and model: whether the replica works."""
    body = trial_body(scope.endpoint, upstream.engine_names.get(scope.model, scope.model))
    timeout_s = min(limits.TRIAL_TIMEOUT_S, upstream.timeout_s)
    answer = await upstream.engine.post(scope.endpoint.removeprefix("/v1"), body, timeout_s)
    return classify(answer, scope.endpoint)


def _path(request: Request) -> str:
    return request.run.lease.endpoint.removeprefix("/v1")


def _body(
    upstream: Upstream,
    request: Request,
    line: RequestLine,
    set_fields: Mapping[str, object],
    without: frozenset[str] = frozenset(),
) -> bytes:
    """Raises LineFormatError. `without`: beside what the engine never gets."""
    lease = request.run.lease
    return upstream.rules.body(
        line.body,
        lease.endpoint,
        upstream.engine_names.get(lease.model),
        lease.organization_id,
        takes_salt=upstream.replica.takes_cache_salt,
        set_fields=set_fields,
        without=without,
    )


def _refuses(answer: Attempt, *words: str) -> bool:
    """Whether the engine says that it does not take what one of the words begins."""
    if not isinstance(answer, Reply) or answer.status not in (400, 422):
        return False
    message = (error_message(answer.body) or "").lower()
    return any(word in message for word in words)


def render(request: Request, custom_id: str, outcome: Succeeded | Rejected) -> Finished:
    """The request's final outcome as it will stand in a result file."""
    dialect = request.run.lease.dialect
    request_id = output_line_id(request.run.key.batch_id, request.line)
    if isinstance(outcome, Succeeded):
        usage = outcome.usage
        charged = usage if usage.unreported else None
        output = render_success(
            dialect, request_id, custom_id, outcome.status, outcome.body, charged
        )
        return Finished(request.index, request.line, True, output, outcome.usage)
    output = render_rejected(
        dialect,
        request_id,
        custom_id,
        status=outcome.status,
        body=outcome.body,
        code=outcome.code,
        message=outcome.message,
    )
    return Finished(request.index, request.line, False, output)
