"""The Files API of both vendors: routes and lists (protocol.md sections 2.2 to 2.6 and 3.1).

Bytes in are `uploads`, bytes out `downloads`; both are plain Starlette routes, because FastAPI's
request handling costs more than the rest of a small upload together.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide import limits
from lowtide.api.files.downloads import content
from lowtide.api.files.file_objects import file_object, openai_file, together_file
from lowtide.api.files.uploads import create_file, receive_signed
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify, note_rows, services_of
from lowtide.api.middleware.paths import client_dialect, dialect_of
from lowtide.api.openapi.refusals import refusals

router = APIRouter(tags=["files"])

FileLimit = Annotated[int, Query(ge=1, le=limits.PAGE_SIZE_MAX_FILES)]


@router.get("/v1/files", responses=refusals("invalid_request"))
async def list_files(
    request: Request,
    after: str | None = None,
    limit: FileLimit = limits.PAGE_SIZE_DEFAULT_FILES,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> Response:
    """Together's list has no paging; OpenAI's pages carry `has_more` always, else clients loop."""
    project_id, files = identify(request).project_id, services_of(request).files
    if client_dialect(request) == "together":
        page = await files.page(project_id, limit=limits.BARE_LIST_MAX)
        note_rows(request, len(page.files))
        return json_response({"object": "list", "data": [together_file(f) for f in page.files]})
    page = await files.page(
        project_id, after=after, limit=limit, order=order, purpose=purpose or None
    )
    note_rows(request, len(page.files))
    data: list[dict[str, Any]] = []
    while len(data) < len(page.files):
        await asyncio.sleep(0)
        step = page.files[len(data) : len(data) + limits.PAGE_STEP]
        data += [openai_file(file) for file in step]
    return json_response(
        {
            "object": "list",
            "data": data,
            "has_more": page.has_more,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
        }
    )


@router.get("/v1/files/{file_id}", responses=refusals("file_not_found"))
async def retrieve_file(request: Request, file_id: str) -> Response:
    file = await services_of(request).files.get(identify(request).project_id, file_id)
    return json_response(file_object(file, dialect_of(request, file.dialect)))


@router.delete(
    "/v1/files/{file_id}",
    responses=refusals("file_not_found", "invalid_request", "storage_full"),
)
async def delete_file(request: Request, file_id: str) -> Response:
    await services_of(request).files.delete(identify(request).project_id, file_id)
    return json_response({"id": file_id, "object": "file", "deleted": True})


@router.post(
    "/v1/files/{file_id}/preprocess",
    responses=refusals("file_not_found", "file_not_ready", "file_lost"),
)
async def preprocess_file(request: Request, file_id: str) -> Response:
    """Together's step 3. The PUT did all the work, so this only looks, as often as it is asked."""
    file = await services_of(request).files.get_ready(identify(request).project_id, file_id)
    return json_response(together_file(file))


router.routes += [
    Route("/v1/files", create_file, methods=["POST"]),
    Route("/v1/files/upload", create_file, methods=["POST"]),
    Route("/v1/files/{file_id}/content", content, methods=["GET", "HEAD"]),
    Route("/v1/uploads/signed/{file_id}", receive_signed, methods=["PUT"]),
]
