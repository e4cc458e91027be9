"""`GET /v1/batches/{id}/history`, `/events` and `/parts`: how a batch goes, and what happened."""

from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.objects.history import (
    BatchEventList,
    BatchEventObject,
    BatchHistoryObject,
    BatchParts,
    PartObject,
    RateObject,
)
from lowtide.api.objects.instants import object_of
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes
from lowtide.core.batches.batch import Batch
from lowtide.core.errors import LowtideError
from lowtide.core.history.batch_history import RateSpan
from lowtide.core.history.batch_parts import BatchPart, edges, in_input_order
from lowtide.service.batches.results import NEVER_RUN

routes = Routes("batches")


@routes.add("GET", "/v1/batches/{batch_id}/history", answers(BatchHistoryObject, "batch_not_found"))
async def history(request: Request, batch_id: str) -> Response:
    """Requests, failures and tokens of the batch over time, up to this moment."""
    batch = await services_of(request).batches.get(identify(request).project_id, batch_id)
    return json_response(BatchHistoryObject(batch_id=batch_id, data=await rates_of(request, batch)))


@routes.add("GET", "/v1/batches/{batch_id}/events", answers(BatchEventList, "batch_not_found"))
async def events(request: Request, batch_id: str) -> Response:
    """What happened to the batch: who did what, and when."""
    batch = await services_of(request).batches.get(identify(request).project_id, batch_id)
    return json_response(BatchEventList(data=await events_of(request, batch)))


@routes.add("GET", "/v1/batches/{batch_id}/parts", answers(BatchParts, "batch_not_found"))
async def parts(request: Request, batch_id: str) -> Response:
    """Which parts of the batch have run, in the order in which its requests run; once its results
    are written, in that of the input's lines."""
    batch = await services_of(request).batches.get(identify(request).project_id, batch_id)
    return json_response(await parts_of(request, batch))


async def parts_of(request: Request, batch: Batch) -> BatchParts:
    """The parts of a batch of the caller's project."""
    lines = await _parts_of_lines(request, batch)
    parts = lines if lines is not None else await services_of(request).history.parts(batch)
    data = [object_of(PartObject, each) for each in parts]
    return BatchParts(batch_id=batch.id, in_input_order=lines is not None, data=data)


async def _parts_of_lines(request: Request, batch: Batch) -> list[BatchPart] | None:
    """The lines of the input in their order; None while their results are not written, or gone."""
    services, pages = services_of(request), services_of(request).result_pages
    if batch.ended_at is None or not batch.counts.total:
        return None
    try:
        output, errors = [
            await services.files.get_ready(batch.project_id, file_id) if file_id else None
            for file_id in (batch.output_file_id, batch.error_file_id)
        ]
    except LowtideError:
        return None
    lines = max([await pages.last_line(each) for each in (output, errors) if each], default=0)
    places = edges(lines, limits.BATCH_PARTS_MAX)
    done, failed = [
        await pages.lines_before(each, places) if each else [0] * len(places)
        for each in (output, errors)
    ]
    return in_input_order(places, done, failed, ran=await _any_ran(request, batch))


async def _any_ran(request: Request, batch: Batch) -> bool:
    """Whether an engine saw a line that has no success."""
    if batch.status == "completed":
        return True
    groups = await services_of(request).retries.failures(batch.project_id, batch.id)
    return any(each.code not in NEVER_RUN for each in groups)


async def rates_of(request: Request, batch: Batch) -> list[RateObject]:
    """The rates of a batch of the caller's project."""
    return [_rate(span) for span in await services_of(request).history.rates(batch)]


async def events_of(request: Request, batch: Batch) -> list[BatchEventObject]:
    """The events of a batch of the caller's project."""
    return [
        object_of(BatchEventObject, each, at=each.at.timestamp(), detail=each.detail or None)
        for each in await services_of(request).history.events(batch)
    ]


def _rate(span: RateSpan) -> RateObject:
    done = span.done
    return object_of(
        RateObject,
        done,
        at=span.at.timestamp(),
        seconds=span.seconds,
        requests_per_s=round(done.requests / span.seconds, 6),
        failed_per_s=round(done.failed / span.seconds, 6),
        tokens_per_s=round(done.tokens / span.seconds, 6),
    )
