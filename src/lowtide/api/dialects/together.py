"""Batches and models as the Together SDKs know them (protocol.md sections 2.2, 2.7, 2.9).

Called by the batch and model routes. Guards what together 1.x dies of: only the six statuses that
are safe everywhere, in upper case; user_id, file_size_bytes, job_deadline and progress never
null; `error` a string; every model with its pricing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from lowtide.api.dialects import money, openai
from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.core.accounts.ledger import Cost
from lowtide.core.batches.batch import Batch, Status
from lowtide.core.reporting.progress import Progress

STATUSES: Final = MappingProxyType[Status, str](
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


def batch(batch: Batch, progress: Progress, cost: Cost) -> dict[str, Any]:
    """The BatchJob object: upper-case status, ISO-8601 times, progress in percent."""
    return {
        "id": batch.id,
        "user_id": batch.user_id,
        "input_file_id": batch.input_file_id,
        "file_size_bytes": batch.input_bytes,
        "status": STATUSES[batch.status],
        "job_deadline": iso(batch.expires_at),
        "created_at": iso(batch.created_at),
        "endpoint": batch.endpoint,
        "progress": round(batch.counts.percent, 2),
        "model_id": batch.model,
        **openai.result_files(batch),
        "error": error(batch),
        "completed_at": iso(batch.completed_at),
        "completion_window": openai.window(batch.completion_window_s),
        "in_progress_at": iso(batch.in_progress_at),
        "cancelling_at": iso(batch.cancelling_at),
        "ended_at": iso(batch.ended_at),
        "request_counts": openai.request_counts(batch),
        "usage": openai.usage(batch.usage),
        "cost": money.cost(cost),
        "errors": openai.errors(batch.errors),
        "warnings": openai.errors(batch.warnings),
        "metadata": dict(batch.metadata),
        "priority": batch.priority,
        "stage": progress.stage,
        "reason": progress.reason,
        "eta_seconds": openai.seconds(progress.eta_s),
        "estimated_completion_at": iso(progress.completion_at),
        "feasibility": openai.feasibility(progress.verdict),
        **openai.errors_total(batch),
    }


def created(job: dict[str, Any], warning: str | None) -> dict[str, Any]:
    """The create answer around a rendered job; the CLI shows `warning` after it submitted."""
    return {"job": job, **({"warning": warning} if warning else {})}


def error(batch: Batch) -> str | None:
    """The first reason of a failed batch as one sentence, and how many more there are."""
    if not batch.errors:
        return None
    first = batch.errors[0]
    where = f"line {first.line}: " if first.line is not None else ""
    more = max(batch.errors_total, len(batch.errors)) - 1
    rest = f" (and {more} more errors; `errors` lists them)" if more else ""
    return f"{where}{first.message}{rest}"


def model(entry: ModelEntry) -> dict[str, Any]:
    """An entry of the model list. Prices in dollars per million tokens, live."""
    return {
        "id": entry.id,
        "object": "model",
        "created": 0,
        "type": entry.type,
        "display_name": entry.id.rpartition("/")[2],
        "organization": openai.publisher(entry),
        "link": None,
        "license": None,
        "context_length": entry.context_length,
        "pricing": {
            "hourly": 0.0,
            "base": 0.0,
            "finetune": 0.0,
            **money.pricing(entry),
        },
        "size": entry.size,
        "batch_discount": float(entry.batch_discount),
    }


def model_list(entries: Sequence[ModelEntry]) -> list[dict[str, Any]]:
    return [model(entry) for entry in entries]


def project_model(entry: ModelEntry, *, project_id: str, organization_id: str) -> dict[str, Any]:
    """A model as `models.list()` of together 3.x reads it, from /v2/projects/{id}/models."""
    length = entry.context_length
    return {
        **model(entry),
        "name": entry.id,
        "projectId": project_id,
        "organizationId": organization_id,
        "visibility": "VISIBILITY_INTERNAL",
        "weights": {"contextLength": str(length) if length is not None else None},
    }


def iso(instant: datetime | None) -> str | None:
    """`2026-11-21T01:04:35.123456Z`."""
    if instant is None:
        return None
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
