"""`GET /v1/batches/{id}/costs`: what a batch has cost so far, by model."""

from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.accounts.usage_object import batch_costs
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.objects.accounts import BatchCosts
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes
from lowtide.core.batches.batch import Batch

routes = Routes("batches")


@routes.add("GET", "/v1/batches/{batch_id}/costs", answers(BatchCosts, "batch_not_found"))
async def costs(request: Request, batch_id: str) -> Response:
    """Requests, tokens and dollars of the batch so far, by model."""
    batch = await services_of(request).batches.get(identify(request).project_id, batch_id)
    return json_response(await costs_of(request, batch))


async def costs_of(request: Request, batch: Batch) -> BatchCosts:
    """The costs of a batch of the caller's project."""
    return batch_costs(batch.id, await services_of(request).batches.costs_by_model(batch))
