"""What the pages of a new batch show: the form for a file, and what a batch over it would come to.

The estimate is that of a dry run over HTTP.
"""

import shlex
from secrets import token_hex
from typing import Final

import msgspec
from starlette.requests import Request

from lowtide import limits
from lowtide.api.batches.batches import estimate_of
from lowtide.api.console.batches.batch_rows import Context
from lowtide.api.console.batches.shown_lines import shown_line
from lowtide.api.files.uploads import public_base
from lowtide.api.middleware.caller import identify, require, services_of
from lowtide.api.objects.lines import LineObject
from lowtide.core.batches.line import ENDPOINTS
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.core.files.table_name import TABLE_ENDINGS
from lowtide.core.reporting.standing import Standing
from lowtide.core.validation.first_line import DEFAULT_ENDPOINT, read_first_line
from lowtide.service.batches.new_batch import NewBatch

TABLE_EXAMPLE: Final = "reviews.csv"


async def load_new(request: Request) -> Context:
    """The form for a file. Raises LowtideError for a key that may make no batches."""
    caller = identify(request)
    require(caller, ("submit",))
    services = services_of(request)
    bytes_max = await services.files.file_bytes_max(caller.project_id)
    named = await _models_to_name(request)
    return {
        "models": named[: limits.MODELS_SHOWN],
        "models_more": len(named[limits.MODELS_SHOWN :]),
        "file_bytes_max": bytes_max,
        "address": public_base(request),
        "table_endings": TABLE_ENDINGS,
        "table_command": table_command(request, TABLE_EXAMPLE),
        "table_example": TABLE_EXAMPLE,
    }


async def _models_to_name(request: Request) -> list[str]:
    """The ids that a line may name, those first for which an engine takes calls of chats now."""
    services = services_of(request)
    standing = await services.standings.now()
    listed = [entry.id for entry in services.models.list()]
    return sorted(
        listed, key=lambda model: not _served(standing, model, DEFAULT_ENDPOINT)["is_served"]
    )


def beside_field(error: LowtideError) -> str:
    """The message as it is shown beside the field, whose name it need not repeat."""
    return error.message.removeprefix(f"{error.param} = ")


def table_command(request: Request, name: str) -> str:
    """The command that asks this server about each row of the table of that name. A server reads no
    tables (docs/decisions/0014-tables.md).
    """
    ending = name[name.rindex(".") :]
    return (
        f"lowtide run {shlex.quote(name)} -o answers{ending} --server {public_base(request)}"
        " --model MODEL --prompt 'What to ask about {{ COLUMN }}'"
    )


async def load_draft(request: Request, file_id: str) -> Context:
    """What a batch over that file would come to, by a dry run. `filled`: what stands in the fields;
    `wrong`: by field, what is wrong with it.
    """
    services, caller = services_of(request), identify(request)
    require(caller, ("submit",))
    file = await services.files.get_ready(caller.project_id, file_id)
    head = await head_of(request, file)
    named = read_first_line(head).url
    endpoint = request.query_params.get("endpoint") or (
        named if named in ENDPOINTS else DEFAULT_ENDPOINT
    )
    window, wrong = request.query_params.get("completion_window") or None, {}
    asked = NewBatch(input_file_id=file_id, endpoint=endpoint, completion_window=window)
    try:
        estimate = await estimate_of(request, asked)
    except LowtideError as error:
        if error.param != "completion_window":
            raise
        wrong = {"for_window": beside_field(error)}
        asked = msgspec.structs.replace(asked, completion_window=None)
        estimate = await estimate_of(request, asked)
    standing = await services.standings.now()
    return {
        "file": file,
        "endpoint": endpoint,
        "names_endpoint": named is not None,
        "endpoints": sorted(ENDPOINTS),
        "window": asked.completion_window or services.settings.limits.completion_window_default,
        "wrong": wrong,
        "filled": {"completion_window": window} if window else {},
        "estimate": estimate,
        "models": [
            {"its": each, **_served(standing, each.model, endpoint)} for each in estimate.models
        ],
        "address": public_base(request),
        "once": token_hex(16),
        "first": [
            shown_line(line_to_be_sent(place, line))
            for place, line in enumerate(first_lines(file, head))
        ],
        "is_run": False,
        "webhooks": await services.webhooks.all_of(caller.project_id),
    }


async def head_of(request: Request, file: File) -> bytes:
    """The beginning of a file: its first lines, or of longer ones so much as is read of them."""
    head = bytearray()
    length = min(file.bytes, limits.FIRST_LINES_BYTES_MAX)
    async for block in services_of(request).files.stream(file, 0, length):
        head += block
        if head.count(b"\n") >= limits.FIRST_LINES:
            break
    return bytes(head)


def first_lines(file: File, head: bytes) -> list[bytes]:
    """The first lines of a file that are not blank, in its `head`; none where the first is too
    long."""
    lines = head.split(b"\n")
    if file.bytes > limits.FIRST_LINES_BYTES_MAX:
        lines.pop()  # the end of it was not read
    return [each for each in lines if each.strip()][: limits.FIRST_LINES]


def line_to_be_sent(place: int, line: bytes, result: bytes | None = None) -> LineObject:
    """The line at that place of the first ones, and what it came to where it was run."""
    size = len(result or b"")
    fits = max(size, len(line)) <= limits.PAGE_LINE_BYTES_MAX
    return LineObject(
        place=place,
        line=place + 1,
        bytes=size,
        result=msgspec.Raw(result) if fits and result else None,
        request=msgspec.Raw(line) if fits else None,
    )


def _served(standing: Standing, model: str, endpoint: str) -> Context:
    """Whether a replica would take batch calls of that model now, and why not."""
    if not standing.is_known or model not in standing.models:
        return {"is_served": False, "why": "no engine that serves it is running"}
    hold = standing.hold_of(model, endpoint)
    return {"is_served": hold is None, "why": "" if hold is None else hold.public_reason}
