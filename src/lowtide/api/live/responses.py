"""The routes of background responses: retrieve, cancel, delete.

They are made by `POST /v1/responses` with `background: true`, which the live API answers.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.objects.files import DeletedObject
from lowtide.api.openapi.answers import JSON, DescribedAnswer, answers, refusals
from lowtide.api.openapi.routes import Routes
from lowtide.core.errors import ErrorCode, LowtideError

routes = Routes("responses")

_PATH = "/v1/responses/{response_id}"
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "response"},
        "status": {"enum": ["queued", "in_progress", "completed", "failed", "cancelled"]},
    },
    "required": ["id", "object", "status"],
}
"""The schema of a background response; its other fields are the engine's."""


def _answers(*codes: ErrorCode) -> dict[int | str, DescribedAnswer]:
    return {200: DescribedAnswer(content={JSON: _SCHEMA}), **refusals(*codes)}


@routes.add("GET", _PATH, _answers("response_not_found", "invalid_request"))
async def retrieve(request: Request, response_id: str) -> Response:
    """A background response: queued, in_progress, completed, failed or cancelled."""
    if request.query_params.get("stream", "").lower() == "true":
        raise LowtideError(
            "invalid_request", "A background response is not streamed here: poll it.", "stream"
        )
    service = services_of(request).background
    return _json(await service.get(identify(request).project_id, response_id))


@routes.add(
    "POST", f"{_PATH}/cancel", _answers("response_not_found", "invalid_request", "storage_full")
)
async def cancel(request: Request, response_id: str) -> Response:
    """Stop a background response that has not ended."""
    service = services_of(request).background
    return _json(await service.cancel(identify(request).project_id, response_id))


@routes.add("DELETE", _PATH, answers(DeletedObject, "response_not_found", "storage_full"))
async def delete(request: Request, response_id: str) -> Response:
    """Forget a background response; one that has not ended is cancelled."""
    service = services_of(request).background
    await service.delete(identify(request).project_id, response_id)
    return json_response(DeletedObject(id=response_id, object="response"))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
