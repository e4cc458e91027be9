"""The Files API of both vendors: routes and lists (protocol.md sections 2.2 to 2.6 and 3.1).

Bytes in are `uploads`, bytes out `downloads`; their routes are declared here.
"""

import asyncio
from typing import Annotated, Any, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.files import downloads
from lowtide.api.files.file_objects import file_object, openai_file, together_file
from lowtide.api.files.uploads import create_file, receive_signed
from lowtide.api.http.idempotency_key import PARAMETERS
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify, note_rows, services_of
from lowtide.api.middleware.paths import client_dialect, dialect_of
from lowtide.api.objects.files import (
    DeletedObject,
    FileObject,
    FilePageObject,
    ReceivedFile,
    TogetherFile,
    TogetherFileList,
)
from lowtide.api.openapi.answers import (
    OCTETS,
    DescribedAnswer,
    answer,
    answers,
    body,
    public_refusals,
    refusals,
)
from lowtide.api.openapi.routes import Routes, read_query
from lowtide.core.errors import ErrorCode
from lowtide.core.files.file import PURPOSES

routes = Routes("files")

_UPLOAD_CODES: Final[tuple[ErrorCode, ...]] = (
    "invalid_request",
    "missing_required_parameter",
    "invalid_purpose",
    "upload_busy",
    "upload_interrupted",
    "file_too_large",
    "request_too_large",
    "storage_limit_exceeded",
    "storage_full",
    "idempotency_key_reused",
)
_DOWNLOAD_CODES: Final[tuple[ErrorCode, ...]] = (
    "invalid_request",
    "file_not_ready",
    "file_not_found",
    "file_lost",
    "offset_expired",
    "range_not_satisfiable",
)
_SIGNED_CODES: Final[tuple[ErrorCode, ...]] = (
    "invalid_request",
    "upload_busy",
    "upload_interrupted",
    "upload_invalid",
    "upload_expired",
    "file_too_large",
    "storage_limit_exceeded",
)
"""Never a 5xx: see `uploads.receive_signed`."""
_TEXT: Final = {"type": "string"}
_BYTES: Final = {"type": "string", "format": "binary"}
_DOWNLOAD: Final = {"application/octet-stream": _BYTES}
_FORM: Final = {
    "file": _BYTES,
    "purpose": {"enum": sorted(PURPOSES)},
    "file_name": _TEXT,
    "file_type": _TEXT,
    "expires_after[anchor]": {"const": "created_at"},
    "expires_after[seconds]": {"type": "integer"},
}
_ANNOUNCEMENT: Final = {name: _FORM[name] for name in ("purpose", "file_name", "file_type")}
_FORMS: Final = {
    "multipart/form-data": {"schema": {"type": "object", "properties": _FORM}},
    "application/x-www-form-urlencoded": {
        "schema": {"type": "object", "properties": _ANNOUNCEMENT}
    },
}


def _query(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": _TEXT} for name in names]


class ListFiles(msgspec.Struct, frozen=True):
    """The query of a list."""

    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE_SIZE_MAX_FILES)] = (
        limits.PAGE_SIZE_DEFAULT_FILES
    )
    order: Literal["asc", "desc"] = "desc"
    purpose: str = ""


@routes.add(
    "GET",
    "/v1/files",
    answers((FilePageObject, TogetherFileList), "invalid_request"),
    parameters=ListFiles,
)
async def list_files(request: Request) -> Response:
    """Together's list has no paging; OpenAI's pages carry `has_more` always, else clients loop."""
    project_id, files = identify(request).project_id, services_of(request).files
    if client_dialect(request) == "together":
        page = await files.page(project_id, limit=limits.BARE_LIST_MAX)
        note_rows(request, len(page.files))
        return json_response(TogetherFileList(data=[together_file(f) for f in page.files]))
    asked = read_query(request, ListFiles)
    page = await files.page(
        project_id,
        after=asked.after or None,
        limit=asked.limit,
        order=asked.order,
        purpose=asked.purpose or None,
    )
    note_rows(request, len(page.files))
    data: list[FileObject] = []
    while len(data) < len(page.files):
        await asyncio.sleep(0)
        step = page.files[len(data) : len(data) + limits.ROWS_AT_ONCE]
        data += [openai_file(file) for file in step]
    return json_response(
        FilePageObject(
            data=data,
            has_more=page.has_more,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
        )
    )


@routes.add("GET", "/v1/files/{file_id}", answers((FileObject, TogetherFile), "file_not_found"))
async def retrieve_file(request: Request, file_id: str) -> Response:
    file = await services_of(request).files.get(identify(request).project_id, file_id)
    return json_response(file_object(file, dialect_of(request, file.dialect)))


@routes.add(
    "DELETE",
    "/v1/files/{file_id}",
    answers(DeletedObject, "file_not_found", "invalid_request", "storage_full"),
)
async def delete_file(request: Request, file_id: str) -> Response:
    await services_of(request).files.delete(identify(request).project_id, file_id)
    return json_response(DeletedObject(id=file_id, object="file"))


@routes.add(
    "POST",
    "/v1/files/{file_id}/preprocess",
    answers(TogetherFile, "file_not_found", "file_not_ready", "file_lost"),
)
async def preprocess_file(request: Request, file_id: str) -> Response:
    """Together's step 3. The PUT did all the work, so this only looks, as often as it is asked."""
    file = await services_of(request).files.get_ready(identify(request).project_id, file_id)
    return json_response(together_file(file))


def _upload(path: str) -> None:
    """Declares one of the two addresses that take uploads."""
    routes.add(
        "POST",
        path,
        {
            200: answer((FileObject, TogetherFile), "The file, with its bytes"),
            302: DescribedAnswer("Announced: PUT the bytes to `Location`"),
            **refusals(*_UPLOAD_CODES),
        },
        requestBody=body(_FORMS),
        parameters=[*_query("purpose", "file_name", "checksum"), *PARAMETERS],
    )(create_file)


_upload("/v1/files")
_upload("/v1/files/upload")
for _method in ("GET", "HEAD"):
    routes.add(
        _method,
        "/v1/files/{file_id}/content",
        {
            200: DescribedAnswer(content=_DOWNLOAD),
            206: DescribedAnswer("The range that was asked for", _DOWNLOAD),
            **refusals(*_DOWNLOAD_CODES),
        },
        parameters=[
            *_query("offset"),
            *({"name": n, "in": "header", "schema": _TEXT} for n in ("Range", "If-Range")),
        ],
    )(downloads.content)
routes.add(
    "PUT",
    "/v1/uploads/signed/{file_id}",
    {200: answer(ReceivedFile), **public_refusals(*_SIGNED_CODES)},
    requestBody=body(OCTETS),
    parameters=_query("expires", "signature", "checksum", "key"),
)(receive_signed)
