"""`GET /v1/admin/engines/{name}/history`: what an engine did, and what its live calls met."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import services_of
from lowtide.api.objects.history import (
    EngineHistoryObject,
    EngineSpanObject,
    LiveCallsObject,
)
from lowtide.api.objects.instants import object_of
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes, read_query
from lowtide.api.replicas.engines import engines_named, engines_of
from lowtide.core.history.replica_history import ReplicaPart, ReplicaSpan, sum_of

routes = Routes("admin")


class EngineHours(msgspec.Struct, frozen=True):
    """How far back to look."""

    hours: Annotated[
        float,
        msgspec.Meta(gt=0, le=limits.REPLICA_HISTORY_KEEP_S / 3600, description="until now"),
    ] = 1.0


@routes.add(
    "GET",
    "/v1/admin/engines/{name:path}/history",
    answers(EngineHistoryObject, "not_found", "invalid_request"),
    parameters=EngineHours,
)
async def history(request: Request, name: str) -> Response:
    """Batch and live calls of one engine over the last hours, up to 36 of them."""
    hours = read_query(request, EngineHours).hours
    engines_named(await engines_of(request), name)
    (answer,) = await histories_of(request, [name], hours)
    return json_response(answer)


async def histories_of(
    request: Request, names: Sequence[str], hours: float
) -> Sequence[EngineHistoryObject]:
    """The histories of these engines in that order."""
    spans_of = await services_of(request).history.replicas(names, hours)
    return [
        EngineHistoryObject(
            name=name,
            hours=hours,
            live=_live(sum_of(each.part for each in spans_of[name])),
            data=[_span(each) for each in spans_of[name]],
        )
        for name in names
    ]


async def live_calls_of(
    request: Request, names: Sequence[str], hours: float
) -> tuple[Mapping[str, LiveCallsObject], LiveCallsObject]:
    """What live calls met at each of these engines, and at all together."""
    sums = await services_of(request).history.replica_sums(names, hours)
    return {name: _live(its) for name, its in sums.items()}, _live(sum_of(sums.values()))


def _live(together: ReplicaPart) -> LiveCallsObject:
    return LiveCallsObject(
        streams=together.live_calls,
        ttft_p99_s=_rounded(together.first_byte_s(0.99)),
        gave_way_s=round(together.gave_way_s, 1),
        taken_back=together.taken_back,
    )


def _span(span: ReplicaSpan) -> EngineSpanObject:
    part = span.part
    return object_of(
        EngineSpanObject,
        part,
        at=span.at.timestamp(),
        seconds=span.seconds,
        batch_requests=part.batch_calls,
        tokens_per_s=round((part.input_tokens + part.output_tokens) / span.seconds, 3),
        live_streams=part.live_calls,
        live_ttft_p50_s=_rounded(part.first_byte_s(0.5)),
        live_ttft_p99_s=_rounded(part.first_byte_s(0.99)),
        gave_way_s=round(part.gave_way_s, 1),
        window=_mean(part.window_s, part.seen_s),
        in_flight=_mean(part.in_flight_s, part.seen_s),
    )


def _mean(amount_s: float, seconds: float) -> float | None:
    return round(amount_s / seconds, 2) if seconds else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
