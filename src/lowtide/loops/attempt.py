"""One attempt at one request: line in, engine's answer as an outcome, output line out.

Where the engine understands it, the body gets the priority that puts batch work behind live calls
(ports/engine.py). An engine that was restarted without that refuses it: then the request goes out
once more without, and so do all after it.
"""

from collections.abc import Mapping

import msgspec

from lowtide.core.dispatch import Request
from lowtide.core.line import (
    LineFormatError,
    engine_body,
    output_line_id,
    read_request,
    render_rejected,
    render_success,
)
from lowtide.core.outcome import (
    Attempt,
    Outcome,
    Rejected,
    Reply,
    Succeeded,
    classify,
    error_message,
)
from lowtide.core.replica import Replica
from lowtide.core.segment import Finished
from lowtide.ports.engine import Engine

_NO_FIELDS: Mapping[str, object] = {}


class Upstream(msgspec.Struct, frozen=True):
    """A replica with what it takes to call it. `engine_names` maps model ids to the engine's
    names.
    """

    replica: Replica
    engine: Engine
    engine_names: Mapping[str, str]
    drop_fields: frozenset[str]
    timeout_s: float


async def attempt(upstream: Upstream, request: Request) -> tuple[str, Outcome]:
    """Send the request once; its custom_id and what came of it."""
    lease = request.run.lease
    replica = upstream.replica
    priority = replica.priority
    try:
        line = read_request(request.data)
        body = engine_body(
            line,
            model=upstream.engine_names.get(lease.model),
            drop_fields=upstream.drop_fields,
            set_fields=_NO_FIELDS if priority is None else {"priority": priority},
        )
    except LineFormatError as error:
        return "", Rejected("invalid_json_line", str(error))
    path = lease.endpoint.removeprefix("/v1")
    answer = await upstream.engine.post(path, body, upstream.timeout_s)
    if priority is not None and _refuses_priority(answer):
        body = engine_body(
            line,
            model=upstream.engine_names.get(lease.model),
            drop_fields=upstream.drop_fields | {"priority"},
            set_fields=_NO_FIELDS,
        )
        answer = await upstream.engine.post(path, body, upstream.timeout_s)
        if isinstance(answer, Reply) and answer.status < 300 and replica.priority == priority:
            replica.priority = None
    return line.custom_id, classify(answer)


def _refuses_priority(answer: Attempt) -> bool:
    if not isinstance(answer, Reply) or answer.status not in (400, 422):
        return False
    return "priorit" in (error_message(answer.body) or "").lower()


def render(request: Request, custom_id: str, outcome: Succeeded | Rejected) -> Finished:
    """The request's final outcome as it will stand in a result file."""
    dialect = request.run.lease.dialect
    request_id = output_line_id(request.run.key.batch_id, request.line)
    if isinstance(outcome, Succeeded):
        output = render_success(dialect, request_id, custom_id, outcome.status, outcome.body)
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
