"""The batch routes: read what a client sent, call the verb, answer in the client's shape.

Which shape: a collection follows the client, an existing batch follows how it was created, a
fixed mount always has its own (protocol.md section 1, rules 1, 2b, 2c, 2e). Guards: a create
counts as answered only while its client is still connected, so that a repetition after a
time-out finds the first batch.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.batches.estimate_object import estimate_object
from lowtide.api.dialects import openai, render_batch, together
from lowtide.api.http.idempotency_key import PARAMETERS, key_of
from lowtide.api.http.json_body import as_struct, json_response, read_json
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, note_rows, services_of
from lowtide.api.middleware.paths import client_dialect, dialect_of, fixed_dialect
from lowtide.api.objects.batches import (
    BatchJob,
    BatchObject,
    BatchPage,
    BatchStatus,
    CreatedBatch,
    CreatedJob,
    EstimateObject,
)
from lowtide.api.openapi.answers import BATCH_WRITES, answer, answers, json_body, refusals
from lowtide.api.openapi.routes import Routes, read_query
from lowtide.core.batches.batch import Batch, Dialect
from lowtide.core.batches.batch_filter import BatchFilter
from lowtide.core.batches.line import ENDPOINTS
from lowtide.core.idempotency.request_key import RequestKey
from lowtide.core.scheduling.feasibility import Feasibility
from lowtide.service.batches.batches import Created
from lowtide.service.batches.new_batch import NewBatch

routes = Routes("batches")

_RETRY_COUNT: Final = "x-stainless-retry-count"
_EARLY_READER: Final = "BatchOpenAI/"
EXISTING_HEADER: Final = "Lowtide-Existing-Batch"

_FIELDS: Final = {
    "input_file_id": {"type": "string"},
    "endpoint": {"enum": sorted(ENDPOINTS)},
    "completion_window": {"type": "string", "examples": ["24h"]},
    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    "output_expires_after": {
        "type": "object",
        "properties": {"anchor": {"const": "created_at"}, "seconds": {"type": "integer"}},
        "required": ["anchor", "seconds"],
    },
    "priority": {"type": "integer"},
    "model": {"type": "string"},
    "model_id": {"type": "string"},
    "webhook": {"type": "string", "examples": ["wh_123", "https://example.org/hooks"]},
    "idempotency_key": {"type": "string", "minLength": 1, "maxLength": 255},
    "dry_run": {"type": "boolean"},
    "delete_input": {"type": "boolean"},
}


_Text = Annotated[str, msgspec.Meta(max_length=limits.FILTER_CHARS_MAX)]
_Instant = Annotated[int, msgspec.Meta(ge=0, le=limits.UNIX_S_MAX)]


class FilterBatches(msgspec.Struct, frozen=True):
    """Which batches a list has. `created_after` and `created_before` are Unix seconds; `model`: a
    part of a model's name; `text`: a part of the metadata or of the input file's name, or the
    beginning of the id. `held`: paused, or not. `error_code`: a line of it failed with that code.
    """

    status: BatchStatus | None = None
    held: bool | None = None
    model: _Text = ""
    created_after: _Instant | None = None
    created_before: _Instant | None = None
    text: _Text = ""
    error_code: _Text = ""


class ListBatches(FilterBatches, frozen=True):
    """The query of a list in pages."""

    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE_SIZE_MAX_BATCHES)] = (
        limits.PAGE_SIZE_DEFAULT
    )


@routes.add(
    "POST",
    "/v1/batches",
    {
        200: answer((CreatedBatch, BatchObject, EstimateObject)),
        201: answer((CreatedBatch, CreatedJob), "Created, for Together's clients"),
        **refusals(
            *BATCH_WRITES,
            "missing_required_parameter",
            "model_not_found",
            "invalid_purpose",
            "file_not_ready",
            "file_not_found",
            "file_expired",
            "file_lost",
            "rate_limit_exceeded",
            "spend_cap_exceeded",
            "window_infeasible",
            "idempotency_key_reused",
        ),
    },
    parameters=PARAMETERS,
    requestBody=json_body({"type": "object", "properties": _FIELDS, "required": ["input_file_id"]}),
)
async def create(request: Request) -> Response:
    """Create a batch over an uploaded file."""
    caller, service = identify(request), services_of(request).batches
    asked = as_struct(await read_json(request), NewBatch)
    if asked.dry_run:
        return await _estimate(request, asked)
    repeat, key = _is_repetition(request), _key_of(request, asked)
    created = await service.create(caller.project_id, caller.user_id, asked, repeat=repeat, key=key)
    set_audit_subject(request, created.batch.id)
    response = await _created_answer(request, created)
    if not await request.is_disconnected():
        await service.mark_answered(created.batch.id)
    return response


@routes.add(
    "GET",
    "/v1/batches",
    answers((BatchPage, list[BatchJob]), "invalid_request"),
    parameters=ListBatches,
)
async def page(request: Request) -> Response:
    """Batches, newest first: a page for OpenAI's clients, a bare array for Together's."""
    caller, service = identify(request), services_of(request).batches
    dialect = client_dialect(request)
    which = _filter_of(read_query(request, FilterBatches))
    if dialect == "together":
        newest = await service.page(caller.project_id, limit=limits.BARE_LIST_MAX, which=which)
        return json_response(await render_list(request, newest.batches, dialect))
    asked = read_query(request, ListBatches)
    listed = await service.page(
        caller.project_id, after=asked.after or None, limit=asked.limit, which=which
    )
    rendered = await render_list(request, listed.batches, dialect)
    return json_response(openai.batch_page(rendered, more=listed.more))


def _filter_of(asked: FilterBatches) -> BatchFilter:
    return BatchFilter(
        statuses=() if asked.status is None else openai.statuses_shown_as(asked.status),
        model=asked.model,
        created_after=_instant(asked.created_after),
        created_before=_instant(asked.created_before),
        text=asked.text,
        is_held=asked.held,
        error_code=asked.error_code,
    )


def _instant(unix_s: int | None) -> datetime | None:
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC)


@routes.add("GET", "/v1/batches/{batch_id}", answers((BatchObject, BatchJob), "batch_not_found"))
async def retrieve(request: Request, batch_id: str) -> Response:
    """One batch: its state, counts, stage, and why it does not move."""
    batch = await services_of(request).batches.get(identify(request).project_id, batch_id)
    return await answer_batch(request, batch)


@routes.add(
    "POST",
    "/v1/batches/{batch_id}/cancel",
    answers((BatchObject, BatchJob), "batch_not_found", "batch_ended", "storage_full"),
)
async def cancel(request: Request, batch_id: str) -> Response:
    """Stop a batch; what finished is kept, and billed."""
    caller, service = identify(request), services_of(request).batches
    batch = await service.cancel(caller.project_id, batch_id, caller.user_id)
    return await answer_batch(request, batch)


def _key_of(request: Request, asked: NewBatch) -> RequestKey | None:
    """What the client says that this create is known by."""
    means = msgspec.structs.replace(asked, idempotency_key=None, dry_run=None)
    return key_of(request, "batch", means, asked.idempotency_key)


def _is_repetition(request: Request) -> bool:
    """Whether the SDK says that it sends this once more, because it got no (good) answer."""
    return request.headers.get(_RETRY_COUNT, "0").strip() not in ("", "0")


async def _created_answer(request: Request, created: Created) -> Response:
    """The answer to a create; on the shared /v1 one for both SDKs: OpenAI's
    fields, and `job` beside them.
    """
    batch = created.batch
    services = services_of(request)
    (progress,) = await services.progress.of([batch])
    (cost,) = await services.batches.costs([batch])
    if progress.verdict.kept == "unknown":
        progress = msgspec.structs.replace(progress, verdict=created.verdict)
    flat = openai.batch(batch, progress, cost)
    job = together.created(together.batch(batch, progress, cost), created.warning)
    headers = _feasibility_header(progress.verdict) | _existing_header(created)
    match fixed_dialect(request):
        case "openai":
            return json_response(flat, headers=headers)
        case "together":
            return json_response(job, 201, headers)
        case None:
            status = 201 if batch.dialect == "together" else 200
            both = CreatedBatch(**msgspec.structs.asdict(flat), job=job.job, warning=job.warning)
            return json_response(both, status, headers)


def _feasibility_header(verdict: Feasibility) -> dict[str, str]:
    """The verdict as a header, for clients whose objects drop unknown fields; empty if unknown."""
    return {} if verdict.kept == "unknown" else {"Lowtide-Feasibility": verdict.kept}


def _existing_header(created: Created) -> dict[str, str]:
    """Says that a repeated create was answered with the batch of an earlier one."""
    return {EXISTING_HEADER: "true"} if created.existed else {}


async def answer_batch(request: Request, batch: Batch) -> Response:
    """The batch in the shape that it was created in, or that the mount has."""
    services = services_of(request)
    (progress,) = await services.progress.of([batch])
    (cost,) = await services.batches.costs([batch])
    dialect = dialect_of(request, batch.dialect)
    shown = render_batch(batch, progress, dialect, cost, early_ids=_reads_early(request))
    return json_response(shown)


def _reads_early(request: Request) -> bool:
    """Whether the client takes `output_file_id` for what is finished by now: autobatcher does, and
    reads partial results by it. All others take it for the whole result, as vendors set it.
    """
    return request.headers.get("user-agent", "").startswith(_EARLY_READER)


async def _estimate(request: Request, asked: NewBatch) -> Response:
    """Validate and price, create nothing."""
    return json_response(await estimate_of(request, asked))


async def estimate_of(request: Request, asked: NewBatch) -> EstimateObject:
    """What a batch would come to, or why it would fail. Raises LowtideError."""
    services, project_id = services_of(request), identify(request).project_id
    draft = await services.batches.check(project_id, asked)
    run = await services.estimates.dry_run(
        project_id, draft.file, draft.endpoint, asked.model_override
    )
    verdict = await services.batches.foresee(draft, asked.model_override)
    return estimate_object(run, draft, verdict)


async def render_list(request: Request, batches: Sequence[Batch], dialect: Dialect) -> list[Any]:
    """The batches in the client's shape, made in steps: other calls are served between them."""
    note_rows(request, len(batches))
    rendered: list[BatchObject | BatchJob] = []
    while len(rendered) < len(batches):
        await asyncio.sleep(0)
        step = batches[len(rendered) : len(rendered) + limits.PAGE_STEP_BATCHES]
        rendered += await _render_step(request, step, dialect)
    return rendered


async def _render_step(
    request: Request, batches: Sequence[Batch], dialect: Dialect
) -> list[BatchObject | BatchJob]:
    """Renders one step. Long error lists are cut: a page of them would be megabytes."""
    services = services_of(request)
    progress = await services.progress.of(batches)
    costs = await services.batches.costs(batches)
    kept, early_ids = limits.ERRORS_IN_LIST, _reads_early(request)
    short = [msgspec.structs.replace(batch, errors=batch.errors[:kept]) for batch in batches]
    return [
        render_batch(batch, its_progress, dialect, its_cost, early_ids=early_ids)
        for batch, its_progress, its_cost in zip(short, progress, costs, strict=True)
    ]
