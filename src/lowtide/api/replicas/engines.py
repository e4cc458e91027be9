"""`GET /v1/admin/engines`: which replicas there are, how full each is, and what holds it."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import services_of
from lowtide.api.objects.engines import EngineList, EngineLoad, EngineObject, EngineTotals
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes
from lowtide.api.replicas.engine_objects import engine_list
from lowtide.core.errors import LowtideError

routes = Routes("admin")

TAKES_CALLS: Final = frozenset({"ready", "live_first"})
"""The conditions of an engine that takes batch calls."""


@routes.add("GET", "/v1/admin/engines", answers(EngineList))
async def engines(request: Request) -> Response:
    """Every replica as its worker reports it, every worker, and all of them together."""
    listed = await engines_of(request)
    totals = await totals_of(request, listed.data)
    return json_response(msgspec.structs.replace(listed, totals=totals))


async def engines_of(request: Request) -> EngineList:
    """The engines as they are known now."""
    standings = services_of(request).standings
    return engine_list(await standings.reports(), standings.at())


def _loads(engines: Iterable[EngineObject]) -> list[EngineLoad]:
    """How full those are that tell it."""
    return [each.load for each in engines if each.load is not None]


async def totals_of(request: Request, engines: Sequence[EngineObject]) -> EngineTotals:
    """The engines together: how full they are now, and what they did in about the last minute."""
    services = services_of(request)
    ready = [each for each in engines if each.condition in TAKES_CALLS]
    loads = _loads(engines)
    seconds, part = await services.history.together({each.name for each in engines})
    return EngineTotals(
        engines=len(engines),
        ready=len(ready),
        in_flight=sum(each.in_flight for each in loads),
        window=sum(each.window for each in loads),
        free=sum(max(0, each.window - each.in_flight) for each in _loads(ready)),
        waiting_requests=await services.progress.waiting(),
        requests_per_s=round(part.batch_calls / seconds, 3),
        tokens_per_s=round((part.input_tokens + part.output_tokens) / seconds, 3),
        live_streams=part.live_calls,
        live_ttft_p99_s=None if (first := part.first_byte_s(0.99)) is None else round(first, 4),
        gave_way_s=round(part.gave_way_s, 1),
    )


def engines_named(engines: EngineList, name: str) -> list[EngineObject]:
    """The engine of that name, for each worker that has it. Raises LowtideError `not_found`."""
    these = [each for each in engines.data if each.name == name]
    if not these:
        raise LowtideError("not_found", f"No worker reports an engine '{name}'.", "name")
    return these
