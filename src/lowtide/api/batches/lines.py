"""`GET /v1/batches/{id}/lines`: a page of results with their requests, and any one by its id.

Of a batch that has ended, lines come in input order, any hundred of a million at once. Of one that
runs they come in the order in which they finished, which never changes, so a reader that goes on
behind the last one misses none.
"""

from contextlib import aclosing
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify, note_rows, services_of
from lowtide.api.objects.lines import LineObject, LinePage
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes, read_query
from lowtide.core.batches.result_index import custom_id_of, key_of, line_number_of
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.service.batches.result_pages import ResultLine, ResultPage
from lowtide.service.batches.whole_lines import whole_lines

routes = Routes("batches")


class ListLines(msgspec.Struct, frozen=True):
    """The query of a page. `first` counts from 0 in the file of results or of errors."""

    kind: Literal["output", "errors"] = "output"
    first: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE_LINES_MAX)] = limits.PAGE_LINES_MAX
    custom_id: str | None = None


@routes.add(
    "GET",
    "/v1/batches/{batch_id}/lines",
    answers(LinePage, "batch_not_found", "invalid_request", "file_not_found"),
    parameters=ListLines,
)
async def lines(request: Request, batch_id: str) -> Response:
    """Results, or errors, a page at a time, with the requests that they answer."""
    asked = read_query(request, ListLines)
    page = await lines_of(request, batch_id, asked)
    note_rows(request, len(page.data))
    return json_response(page)


async def lines_of(request: Request, batch_id: str, asked: ListLines) -> LinePage:
    """The page that `asked` names. Raises LowtideError."""
    services, project_id = services_of(request), identify(request).project_id
    batch = await services.batches.get(project_id, batch_id)
    file_id = batch.output_file_id if asked.kind == "output" else batch.error_file_id
    if file_id is None:
        return LinePage(data=[], total=0, has_more=False, in_input_order=batch.ended_at is not None)
    file = await services.files.get_ready(project_id, file_id)
    if file.status == "growing":
        return await _growing(request, file, asked)
    input_key = await _input_key(request, batch.input_file_id)
    if asked.custom_id is not None:
        page = await services.result_pages.find(file, asked.custom_id, input_key)
        return _page(page, has_more=False)
    page = await services.result_pages.page(file, asked.first, asked.limit, input_key)
    return _page(page, has_more=asked.first + len(page.lines) < page.total)


def _page(page: ResultPage, *, has_more: bool) -> LinePage:
    return LinePage(
        data=[_object(each) for each in page.lines],
        total=page.total,
        has_more=has_more,
        in_input_order=True,
    )


def _object(line: ResultLine) -> LineObject:
    request = line.request
    if request is not None and len(request) >= limits.PAGE_LINE_BYTES_MAX:
        request = None  # it may be cut
    return LineObject(
        place=line.place,
        line=line.line or None,
        bytes=line.size,
        result=None if line.is_cut else msgspec.Raw(line.output.rstrip()),
        request=msgspec.Raw(request) if request else None,
    )


async def _input_key(request: Request, file_id: str) -> str | None:
    """The blob of the input; None where it is deleted."""
    try:
        file = await services_of(request).files.get_ready(identify(request).project_id, file_id)
    except LowtideError:
        return None
    return file.blob_key


async def _growing(request: Request, file: File, asked: ListLines) -> LinePage:
    """A page of what has finished by now, in that order."""
    if asked.custom_id is not None:
        return await _found_growing(request, file, asked.custom_id)
    content = await services_of(request).results.open(
        identify(request).project_id, file, asked.first
    )
    taken: list[LineObject] = []
    held = 0
    async with aclosing(content.body), aclosing(whole_lines(content.body)) as found:
        async for output in found:
            line = ResultLine(
                place=asked.first + len(taken),
                line=line_number_of(output),
                size=len(output),
                output=output[: limits.PAGE_LINE_BYTES_MAX],
            )
            taken.append(_object(line))
            held += 0 if line.is_cut else line.size
            if len(taken) == asked.limit or held > limits.PAGE_LINES_BYTES_MAX:
                break
    return LinePage(
        data=taken,
        total=content.last_line,
        has_more=asked.first + len(taken) < content.last_line,
        in_input_order=False,
    )


async def _found_growing(request: Request, file: File, custom_id: str) -> LinePage:
    """The line with that custom_id among those that have finished by now, or none. There is no
    index of them yet, so all are read. Raises LowtideError where they are too many for that.
    """
    content = await services_of(request).results.open(identify(request).project_id, file, 0)
    async with aclosing(content.body), aclosing(whole_lines(content.body)) as found:
        if content.bytes > limits.FIND_BYTES_MAX:
            raise LowtideError(
                "invalid_request",
                f"More than {limits.FIND_BYTES_MAX // 2**20} MiB have finished by now, too much to"
                " search while the batch runs: a line is found by its custom_id once the batch has"
                " ended. Until then page through what has finished.",
                "custom_id",
            )
        wanted, place = key_of(custom_id)[0], -1
        data: list[LineObject] = []
        async for output in found:
            place += 1
            if custom_id_of(output) == wanted:
                cut = output[: limits.PAGE_LINE_BYTES_MAX]
                line = ResultLine(
                    place=place, line=line_number_of(output), size=len(output), output=cut
                )
                data.append(_object(line))
                break
    return LinePage(data=data, total=content.last_line, has_more=False, in_input_order=False)
