"""`Run the first 5 now`: the first lines of a file as single calls, before a batch is made of it.

They go to the batch queue as flex calls: at the price of a batch, within the limits of flex calls,
and taken out of the queue when no answer comes in time. The answers stand on the file's page.
"""

import asyncio
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide import limits
from lowtide.api.console.answers import Fields, form_on, show
from lowtide.api.console.batches.draft_views import first_lines, head_of, line_to_be_sent
from lowtide.api.console.batches.shown_lines import ShownLine, shown_line
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.middleware.console_paths import DRAFTS
from lowtide.core.bodies.body_bounds import require_bounded
from lowtide.core.errors import LowtideError
from lowtide.core.live.flex import read_flex, with_fields
from lowtide.core.usage import UNREADABLE
from lowtide.ports.blobs import BlobError
from lowtide.ports.store import StoreError


class _Line(msgspec.Struct):
    """What is needed of a line; validation at creation is as strict as ever."""

    body: msgspec.Raw
    custom_id: str = ""
    url: str = ""


_decode = msgspec.json.Decoder(_Line).decode


@form_on(DRAFTS + "{file_id}")
async def run_first_lines(request: Request, fields: Fields) -> Response:
    """Runs them at once, and shows each with its answer."""
    file_id: str = request.path_params["file_id"]
    files, project_id = services_of(request).files, identify(request).project_id
    file = await files.get_ready(project_id, file_id)
    lines = first_lines(file, await head_of(request, file))
    if not lines:
        raise LowtideError("invalid_request", "The first line is too long to be run from here.")
    endpoint = fields.get("endpoint", "")
    shown = await asyncio.gather(
        *(_run(request, place, line, endpoint) for place, line in enumerate(lines))
    )
    return await show(request, f"{DRAFTS}{file_id}", first=shown, is_run=True)


async def _run(request: Request, place: int, line: bytes, endpoint: str) -> ShownLine:
    """One line and what it came to; a refusal stands where its answer would."""
    try:
        answer = await _answer(request, line, endpoint)
    except LowtideError as error:
        answer = {"error": {"code": error.code, "message": error.message}}
    except (StoreError, BlobError):
        answer = {"error": {"code": "storage_unavailable", "message": "Try again in a moment."}}
    return shown_line(line_to_be_sent(place, line, msgspec.json.encode(answer)))


async def _answer(request: Request, line: bytes, endpoint: str) -> dict[str, Any]:
    try:
        asked = _decode(line)
        require_bounded(bytes(asked.body))
        body = with_fields(bytes(asked.body), {"service_tier": "flex", "stream": False})
    except UNREADABLE:
        raise LowtideError("invalid_request", "The line is no request.") from None
    call = read_flex(asked.url or endpoint, body)
    assert call is not None, "it asks for the batch queue"
    caller = identify(request)
    try:
        async with asyncio.timeout(limits.FIRST_LINES_WAIT_S):
            answer = await services_of(request).flex.hold(
                caller.project_id, caller.user_id, call, organization_id=caller.organization_id
            )
    except TimeoutError:
        raise LowtideError(
            "resource_unavailable",
            f"No answer within {limits.FIRST_LINES_WAIT_S:.0f} s: the queue is long, or no engine"
            " takes batch calls of this model now. A batch waits for as long as its window.",
        ) from None
    response = {"status_code": answer.status, "body": msgspec.Raw(answer.body)}
    return {"custom_id": asked.custom_id, "response": response}


ROUTES: Final = (Route(DRAFTS + "{file_id}/first", run_first_lines, methods=["POST"]),)
