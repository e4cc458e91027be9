"""What the pages of a new batch show: the form for a file, and what a batch over it would come to.

The estimate is that of a dry run over HTTP.
"""

import re
from secrets import token_hex
from typing import Final

from starlette.requests import Request

from lowtide import limits
from lowtide.api.batches.batches import estimate_of
from lowtide.api.console.batches.batch_rows import Context
from lowtide.api.files.uploads import public_base
from lowtide.api.middleware.caller import identify, require, services_of
from lowtide.core.batches.line import ENDPOINTS
from lowtide.core.files.file import File
from lowtide.core.reporting.standing import Standing
from lowtide.service.batches.new_batch import NewBatch

_URL: Final = re.compile(rb'"url"\s*:\s*"(/v1/[a-z/]+)"')


async def load_new(request: Request) -> Context:
    """The form for a file. Raises LowtideError for a key that may make no batches."""
    caller = identify(request)
    require(caller, ("submit",))
    bytes_max = await services_of(request).files.file_bytes_max(caller.project_id)
    return {"file_bytes_max": bytes_max, "address": public_base(request)}


async def load_draft(request: Request, file_id: str) -> Context:
    """What a batch over that file would come to, by a dry run."""
    services, caller = services_of(request), identify(request)
    require(caller, ("submit",))
    file = await services.files.get_ready(caller.project_id, file_id)
    endpoint = request.query_params.get("endpoint") or await _endpoint_in(request, file)
    window = request.query_params.get("completion_window") or None
    asked = NewBatch(input_file_id=file_id, endpoint=endpoint, completion_window=window)
    estimate = await estimate_of(request, asked)
    standing = await services.standings.now()
    return {
        "file": file,
        "endpoint": endpoint,
        "endpoints": sorted(ENDPOINTS),
        "window": window or services.settings.limits.completion_window_default,
        "estimate": estimate,
        "models": [
            {"its": each, **_served(standing, each.model, endpoint)} for each in estimate.models
        ],
        "address": public_base(request),
        "once": token_hex(16),
        "first": None,
    }


async def _endpoint_in(request: Request, file: File) -> str:
    """The endpoint that the first line names, if it is near the beginning; else that of chats."""
    length = min(file.bytes, limits.FORM_FIELD_BYTES_MAX)
    head = bytearray()
    async for block in services_of(request).files.stream(file, 0, length):
        head += block
    named = (each[1].decode() for each in _URL.finditer(head.partition(b"\n")[0]))
    return next((each for each in named if each in ENDPOINTS), "/v1/chat/completions")


def _served(standing: Standing, model: str, endpoint: str) -> Context:
    """Whether a replica would take batch calls of that model now, and why not."""
    if not standing.is_known or model not in standing.models:
        return {"is_served": False, "why": "no engine that serves it is running"}
    hold = standing.hold_of(model, endpoint)
    return {"is_served": hold is None, "why": "" if hold is None else hold.public_reason}
