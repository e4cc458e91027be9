"""`GET /v1/limits`: each limit of the caller's organization, what is used, and when it frees."""

from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.objects.instants import object_of
from lowtide.api.objects.limits import LimitList, LimitObject
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes

routes = Routes("limits")


@routes.add("GET", "/v1/limits", answers(LimitList))
async def limits(request: Request) -> Response:
    """Each limit: how much is used, what is left, and when more of it comes."""
    owner = identify(request).organization_id
    return json_response(LimitList(organization_id=owner, data=await limit_objects(request)))


async def limit_objects(request: Request) -> list[LimitObject]:
    """The limits of the caller's organization. Raises StoreError."""
    caller = identify(request)
    limits_now = await services_of(request).limits.of(caller.project_id, caller.key_id)
    return [object_of(LimitObject, each) for each in limits_now]
