"""`GET /v1/admin/engines`: which replicas there are, how full each is, and what holds it."""

from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import services_of
from lowtide.api.objects.engines import EngineList, EngineObject
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes
from lowtide.api.replicas.engine_objects import engine_list
from lowtide.core.errors import LowtideError

routes = Routes("admin")


@routes.add("GET", "/v1/admin/engines", answers(EngineList))
async def engines(request: Request) -> Response:
    """Every replica as its worker reports it, and every worker."""
    return json_response(await engines_of(request))


async def engines_of(request: Request) -> EngineList:
    """The engines as they are known now."""
    standings = services_of(request).standings
    return engine_list(await standings.reports(), standings.at())


def engines_named(engines: EngineList, name: str) -> list[EngineObject]:
    """The engine of that name, for each worker that has it. Raises LowtideError `not_found`."""
    these = [each for each in engines.data if each.name == name]
    if not these:
        raise LowtideError("not_found", f"No worker reports an engine '{name}'.", "name")
    return these
