"""Routes that steer a batch which exists: pause, resume, change; and an operator's pause.

The rules are in service/batches/steering.py. Guards: what a key's scope lets it lift is its own
hold: an operator's routes lie under /v1/admin and reach the batches of all projects.
"""

from typing import Any, Final, get_args

from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.batches.batches import answer_batch
from lowtide.api.http.json_body import as_struct, json_response, read_json
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.objects.batches import BatchHolds, BatchJob, BatchObject
from lowtide.api.objects.files import DeletedObject
from lowtide.api.openapi.answers import BATCH_WRITES, answers, json_body
from lowtide.api.openapi.routes import Routes
from lowtide.core.batches.batch import Batch, InFlight
from lowtide.core.errors import ErrorCode
from lowtide.service.batches.steering import ChangeBatch, PauseBatch

routes = Routes("batches")
admin_routes = Routes("admin", prefix="/v1/admin")

_PAUSE: Final[dict[str, Any]] = {
    "in_flight": {"enum": list(get_args(InFlight)), "default": "finish"}
}
_CHANGE: Final[dict[str, Any]] = {
    "priority": {"type": "integer"},
    "completion_window": {"type": "string", "examples": ["48h"]},
    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
}
_REFUSALS: Final[tuple[ErrorCode, ...]] = (
    *BATCH_WRITES,
    "unknown_parameter",
    "batch_not_found",
    "batch_ended",
)


def _optional(properties: dict[str, Any]) -> dict[str, Any]:
    return {**json_body({"type": "object", "properties": properties}), "required": False}


@routes.add(
    "POST",
    "/v1/batches/{batch_id}/pause",
    answers((BatchObject, BatchJob), *_REFUSALS),
    requestBody=_optional(_PAUSE),
)
async def pause(request: Request, batch_id: str) -> Response:
    """Start no further requests of the batch until it is resumed; its window goes on."""
    asked = as_struct(await read_json(request), PauseBatch)
    caller, service = identify(request), services_of(request).steering
    batch = await service.pause(caller.project_id, batch_id, asked, caller.user_id)
    return await answer_batch(request, batch)


@routes.add(
    "POST",
    "/v1/batches/{batch_id}/resume",
    answers((BatchObject, BatchJob), *_REFUSALS),
)
async def resume(request: Request, batch_id: str) -> Response:
    """Let a paused batch go on, unless another hold is left."""
    caller, service = identify(request), services_of(request).steering
    batch = await service.resume(caller.project_id, batch_id, caller.user_id)
    return await answer_batch(request, batch)


@routes.add(
    "PATCH",
    "/v1/batches/{batch_id}",
    answers((BatchObject, BatchJob), *_REFUSALS),
    requestBody=json_body({"type": "object", "properties": _CHANGE, "additionalProperties": False}),
)
async def change(request: Request, batch_id: str) -> Response:
    """Change priority, completion window or metadata of a batch that has not ended."""
    asked = as_struct(await read_json(request), ChangeBatch)
    caller, service = identify(request), services_of(request).steering
    batch = await service.change(caller.project_id, batch_id, asked, caller.user_id)
    return await answer_batch(request, batch)


@routes.add(
    "DELETE",
    "/v1/batches/{batch_id}",
    answers(DeletedObject, "batch_not_found", "batch_not_ended", "storage_full"),
)
async def delete(request: Request, batch_id: str) -> Response:
    """Delete a batch that has ended, with its results. Its bill stays."""
    await services_of(request).steering.delete(identify(request).project_id, batch_id)
    return json_response(DeletedObject(id=batch_id, object="batch"))


@admin_routes.add(
    "POST",
    "/batches/{batch_id}/pause",
    answers(BatchHolds, *_REFUSALS),
    requestBody=_optional(_PAUSE),
)
async def hold(request: Request, batch_id: str) -> Response:
    """Pause a batch of any project, as the operator; its users cannot resume it."""
    asked = as_struct(await read_json(request), PauseBatch)
    return _holds(await services_of(request).steering.pause(None, batch_id, asked))


@admin_routes.add("POST", "/batches/{batch_id}/resume", answers(BatchHolds, *_REFUSALS))
async def release(request: Request, batch_id: str) -> Response:
    """Lift the operator's pause."""
    return _holds(await services_of(request).steering.resume(None, batch_id))


def _holds(batch: Batch) -> Response:
    """An administrator's key reads no batches: the answer tells the holds alone."""
    return json_response(BatchHolds(id=batch.id, holds=batch.holds))
