"""`GET /v1/files/{id}/content`: bytes as they lie, whole, in ranges, or while they still grow.

Guards: Content-Length is always sent (together 1.x asserts it, and it shows a cut connection for
what it is), a missing blob is an error answer, not a broken 200: the first block is read
before the headers go out, and no organization takes all places.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from lowtide import limits
from lowtide.api.http.byte_range import parse_range
from lowtide.api.http.errors import error_response
from lowtide.api.middleware.caller import identify, services_of
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.core.scheduling.byte_budget import ByteBudget


async def content(request: Request, file_id: str) -> Response:
    """GET and HEAD. `?offset=N` and files that still grow go to the result reader (section 6)."""
    return await in_download_place(request, lambda: _content(request, file_id))


async def in_download_place(
    request: Request, answer: Callable[[], Awaitable[Response]]
) -> Response:
    """What `answer` gives, which has a place among the downloads until it is sent. Raises
    LowtideError where the caller's organization has no place left."""
    places: ByteBudget = request.app.state.downloads
    owner = identify(request).organization_id
    if not places.take(owner, 1):
        raise _no_place(owner)
    try:
        response = await answer()
    except BaseException:
        places.give_back(owner, 1)
        raise
    return _Placed(response, lambda: places.give_back(owner, 1))


class _Placed(Response):
    """An answer that occupies one of the download places until it is over."""

    def __init__(self, answer: Response, on_end: Callable[[], None]) -> None:
        super().__init__(status_code=answer.status_code)
        self._answer = answer
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            self._on_end()


def _no_place(owner: str) -> LowtideError:
    return LowtideError(
        "rate_limit_exceeded",
        f"Too many downloads of organization {owner} are under way: it may have as many as are"
        " left free for others. Finish some of them before beginning more.",
        retry_after_s=limits.DOWNLOADS_RETRY_AFTER_S,
    )


async def _content(request: Request, file_id: str) -> Response:
    project_id = identify(request).project_id
    services = services_of(request)
    file = await services.files.get_ready(project_id, file_id)
    offset = _offset(request)
    if file.status != "growing" and offset is None:
        return await _finished(request, file)
    partial = await services.results.open(project_id, file, offset)
    headers = _headers(file) | {
        "content-length": str(partial.bytes),
        "x-incomplete": "true" if partial.incomplete else "false",
        "x-last-line": str(partial.last_line),
    }
    return await begin_stream(request, partial.body, 200, headers)


async def _finished(request: Request, file: File) -> Response:
    etag = f'"{file.sha256}"'
    headers = _headers(file) | {
        "etag": etag,
        "accept-ranges": "bytes",
        "x-incomplete": "false",
        "x-last-line": str(file.lines),
    }
    status, offset, length = 200, 0, file.bytes
    try:
        asked = _asked_range(request, etag, file.bytes)
    except LowtideError as error:
        return error_response(error, {"content-range": f"bytes */{file.bytes}"})
    if asked is not None:
        status, (offset, length) = 206, asked
        headers["content-range"] = f"bytes {offset}-{offset + length - 1}/{file.bytes}"
    headers["content-length"] = str(length)
    body = services_of(request).files.stream(file, offset, length)
    return await begin_stream(request, cast("AsyncGenerator[bytes, None]", body), status, headers)


async def begin_stream(
    request: Request, stream: AsyncGenerator[bytes, None], status: int, headers: Mapping[str, str]
) -> Response:
    """The answer whose body is that stream; its first block is read before the headers go out."""
    if request.method == "HEAD":
        await stream.aclose()
        return Response(status_code=status, headers=headers)
    return _Streamed(await anext(stream, b""), stream, status, headers)


class _Streamed(StreamingResponse):
    """Closes its source when the client leaves, rather than leave an open file to the collector."""

    def __init__(
        self,
        first: bytes,
        rest: AsyncGenerator[bytes, None],
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(_joined(first, rest), status, headers)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):
            await super().__call__(scope, receive, send)


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for block in rest:
        yield block


def _asked_range(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    header = request.headers.get("range")
    if header is None or request.headers.get("if-range", etag) != etag:
        return None
    return parse_range(header, size)


def _headers(file: File) -> dict[str, str]:
    plain = "".join(c if c.isascii() and c not in '"\\%' else "_" for c in file.filename)
    name = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file.filename, safe='')}"
    return {"content-type": "application/octet-stream", "content-disposition": name}


def _offset(request: Request) -> int | None:
    text = request.query_params.get("offset")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise LowtideError("invalid_request", "offset must be a whole number from 0.", "offset")
    return int(text)
