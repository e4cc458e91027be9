"""Batches and models as the Together SDKs know them (protocol.md sections 2.2, 2.7, 2.9).

Called by the batch and model routes. Guards what together 1.x dies of: only the six statuses that
are safe everywhere, in upper case; user_id, file_size_bytes, job_deadline and progress never
null; `error` a string; every model with its pricing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from msgspec import UNSET

from lowtide.api.dialects import money, openai
from lowtide.api.objects.batches import BatchJob, CreatedJob, JobStatus, JobWaitingReason
from lowtide.api.objects.instants import object_of
from lowtide.api.objects.models import ModelWeights, ProjectModel, TogetherModel
from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.core.accounts.ledger import Cost
from lowtide.core.batches.batch import Batch, Status
from lowtide.core.reporting.progress import Progress

STATUSES: Final = MappingProxyType[Status, JobStatus](
    {
        "validating": "VALIDATING",
        "in_progress": "IN_PROGRESS",
        "finalizing": "IN_PROGRESS",
        "expiring": "IN_PROGRESS",
        "cancelling": "IN_PROGRESS",
        "completed": "COMPLETED",
        "failed": "FAILED",
        "expired": "EXPIRED",
        "cancelled": "CANCELLED",
    }
)


def batch(batch: Batch, progress: Progress, cost: Cost) -> BatchJob:
    """The BatchJob object: upper-case status, ISO-8601 times, progress in percent."""
    return object_of(
        BatchJob,
        openai.result_files(batch),
        batch,
        progress,
        **openai.shared_fields(batch, progress, cost),
        file_size_bytes=batch.input_bytes,
        status=STATUSES[batch.status],
        job_deadline=_iso(batch.expires_at),
        created_at=_iso(batch.created_at),
        progress=round(batch.counts.percent, 2),
        model_id=batch.model,
        error=error(batch),
        completed_at=iso(batch.completed_at),
        in_progress_at=iso(batch.in_progress_at),
        cancelling_at=iso(batch.cancelling_at),
        ended_at=iso(batch.ended_at),
        waiting_reasons=tuple(
            object_of(JobWaitingReason, each, reason=each.public, since=iso(each.since))
            for each in progress.causes
        ),
        estimated_completion_at=iso(progress.completion_at),
        cautious_completion_at=iso(progress.cautious_completion_at),
    )


def created(job: BatchJob, warning: str | None) -> CreatedJob:
    """The create answer around a rendered job; the CLI shows `warning` after it submitted."""
    return CreatedJob(job=job, warning=warning or UNSET)


def error(batch: Batch) -> str | None:
    """The first reason of a failed batch as one sentence, and how many more there are."""
    if not batch.errors:
        return None
    first = batch.errors[0]
    where = f"line {first.line}: " if first.line is not None else ""
    more = max(batch.errors_total, len(batch.errors)) - 1
    rest = f" (and {more} more errors; `errors` lists them)" if more else ""
    return f"{where}{first.message}{rest}"


def model(entry: ModelEntry) -> TogetherModel:
    """An entry of the model list. Prices in dollars per million tokens, live."""
    return TogetherModel(**_model(entry))


def _model(entry: ModelEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "type": entry.type,
        "display_name": entry.id.rpartition("/")[2],
        "organization": openai.publisher(entry),
        "context_length": entry.context_length,
        "pricing": money.together_pricing(entry),
        "size": entry.size,
        "batch_discount": float(entry.batch_discount),
    }


def model_list(entries: Sequence[ModelEntry]) -> list[TogetherModel]:
    return [model(entry) for entry in entries]


def project_model(entry: ModelEntry, *, project_id: str, organization_id: str) -> ProjectModel:
    """A model as `models.list()` of together 3.x reads it, from /v2/projects/{id}/models."""
    length = entry.context_length
    return ProjectModel(
        **_model(entry),
        name=entry.id,
        project_id=project_id,
        organization_id=organization_id,
        weights=ModelWeights(context_length=str(length) if length is not None else None),
    )


def iso(instant: datetime | None) -> str | None:
    return None if instant is None else _iso(instant)


def _iso(instant: datetime) -> str:
    """`2026-11-21T01:04:35.123456Z`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
