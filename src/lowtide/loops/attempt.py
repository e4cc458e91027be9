"""One attempt at one request: line in, engine's answer as an outcome, output line out."""

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
from lowtide.core.outcome import Outcome, Rejected, Succeeded, classify
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
    try:
        line = read_request(request.data)
        body = engine_body(
            line,
            model=upstream.engine_names.get(lease.model),
            drop_fields=upstream.drop_fields,
            set_fields=_NO_FIELDS,
        )
    except LineFormatError as error:
        return "", Rejected("invalid_json_line", str(error))
    path = lease.endpoint.removeprefix("/v1")
    return line.custom_id, classify(await upstream.engine.post(path, body, upstream.timeout_s))


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
