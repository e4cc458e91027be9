"""The routes of background responses: retrieve, cancel, delete.

They are made by `POST /v1/responses` with `background: true`, which the live door answers.
"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.openapi.refusals import refusals
from lowtide.core.errors import LowtideError

router = APIRouter(tags=["responses"])

_PATH = "/v1/responses/{response_id}"


@router.get(_PATH, responses=refusals("response_not_found", "invalid_request"))
async def retrieve(request: Request, response_id: str) -> Response:
    """A background response: queued, in_progress, completed, failed or cancelled."""
    if request.query_params.get("stream", "").lower() == "true":
        raise LowtideError(
            "invalid_request", "A background response is not streamed here: poll it.", "stream"
        )
    service = services_of(request).background
    return _json(await service.get(identify(request).project_id, response_id))


@router.post(
    f"{_PATH}/cancel", responses=refusals("response_not_found", "invalid_request", "storage_full")
)
async def cancel(request: Request, response_id: str) -> Response:
    """Stop a background response that has not ended."""
    service = services_of(request).background
    return _json(await service.cancel(identify(request).project_id, response_id))


@router.delete(_PATH, responses=refusals("response_not_found", "storage_full"))
async def delete(request: Request, response_id: str) -> Response:
    """Forget a background response; one that has not ended is cancelled."""
    service = services_of(request).background
    await service.delete(identify(request).project_id, response_id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
