"""`GET /v1/admin/scale`: how many replicas each model needs so that its deadlines are kept."""

from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import services_of
from lowtide.api.objects.instants import object_of
from lowtide.api.objects.scale import ScaleList, ScaleObject
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes
from lowtide.api.replicas.scaler_objects import scaler_object
from lowtide.core.errors import LowtideError
from lowtide.service.scale import ModelScale

routes = Routes("admin")


@routes.add("GET", "/v1/admin/scale", answers(ScaleList))
async def scale(request: Request) -> Response:
    """Every model that is known."""
    scales = await services_of(request).scale.all()
    return json_response(ScaleList(data=[_object(each) for each in scales.values()]))


@routes.add("GET", "/v1/admin/scale/{model:path}", answers(ScaleObject, "model_not_found"))
async def scale_of_model(request: Request, model: str) -> Response:
    """One model, by any of its names; KEDA's `metrics-api` reads `replicas_wanted`."""
    model_scale = await services_of(request).scale.of(model)
    if model_scale is None:
        raise LowtideError("model_not_found", f"No model named '{model}'.", "model")
    return json_response(_object(model_scale))


def _object(scale: ModelScale) -> ScaleObject:
    wanted = scale.wanted
    return object_of(
        ScaleObject,
        scale,
        wanted,
        replicas_wanted=wanted.replicas,
        replicas_present=scale.present,
        work_seconds=None if scale.work_seconds is None else round(scale.work_seconds, 1),
        scaler=None if scale.scaler is None else scaler_object(scale.scaler),
    )
