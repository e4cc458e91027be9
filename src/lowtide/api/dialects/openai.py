"""Batches and models as the OpenAI SDKs know them (protocol.md section 3.3).

Called by the batch and model routes. Guards: every key of the vendor's object is present,
null where unknown; `request_counts` and `metadata` are never null; only the eight statuses
of the SDKs' own literal appear. Lowtide's own keys come after the vendor's and never change
the meaning of one of those.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

from msgspec import UNSET, UnsetType

from lowtide.api.dialects import money
from lowtide.api.objects.batches import (
    BatchObject,
    BatchPage,
    BatchStatus,
    BatchUsage,
    CountsObject,
    FeasibilityObject,
    InputTokensDetails,
    LineErrorList,
    LineErrorObject,
    OutputTokensDetails,
    ResultFiles,
    WaitingReason,
)
from lowtide.api.objects.instants import object_of, unix
from lowtide.api.objects.models import ModelListObject, ModelObject
from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.core.accounts.ledger import Cost
from lowtide.core.batches.batch import TERMINAL, Batch, BatchError, Status
from lowtide.core.batches.completion_window import window_words
from lowtide.core.reporting.progress import Progress
from lowtide.core.scheduling.feasibility import Feasibility
from lowtide.core.usage import Usage

STATUSES: Final = MappingProxyType[Status, BatchStatus](
    {
        "validating": "validating",
        "in_progress": "in_progress",
        "finalizing": "finalizing",
        "expiring": "finalizing",
        "cancelling": "cancelling",
        "completed": "completed",
        "failed": "failed",
        "expired": "expired",
        "cancelled": "cancelled",
    }
)


def statuses_shown_as(shown: BatchStatus) -> tuple[Status, ...]:
    """The states that are shown under that word."""
    return tuple(status for status, word in STATUSES.items() if word == shown)


def batch(batch: Batch, progress: Progress, cost: Cost) -> BatchObject:
    """The Batch object: lowercase status, times in unix seconds."""
    return object_of(
        BatchObject,
        result_files(batch),
        batch,
        progress,
        **shared_fields(batch, progress, cost),
        status=STATUSES[batch.status],
        waiting_reasons=waiting_reasons(progress),
        estimated_completion_at=unix(progress.completion_at),
        cautious_completion_at=unix(progress.cautious_completion_at),
    )


def shared_fields(batch: Batch, progress: Progress, cost: Cost) -> dict[str, Any]:
    """What both vendors' objects show alike, and the batch has under no such name or form."""
    return {
        "errors": errors(batch.errors),
        "warnings": errors(batch.warnings),
        "completion_window": window_words(batch.completion_window_s),
        "request_counts": request_counts(batch),
        "usage": usage(batch.usage),
        "cost": money.cost(cost),
        "metadata": dict(batch.metadata),
        "eta_seconds": seconds(progress.eta_s),
        "cautious_eta_seconds": seconds(progress.cautious_eta_s),
        "feasibility": feasibility(progress.verdict),
        "not_run_count": progress.unexecuted,
        "errors_total": errors_total(batch),
    }


def waiting_reasons(progress: Progress) -> tuple[WaitingReason, ...]:
    """All that holds the batch, in the words for tenants."""
    return tuple(object_of(WaitingReason, each, reason=each.public) for each in progress.causes)


def result_files(batch: Batch) -> ResultFiles:
    """The ids of the result files, under the usual names once the batch has ended and they are
    whole; before that as partial files. Scripts poll until `output_file_id` is set, and then read.
    """
    if batch.status in TERMINAL:
        return ResultFiles(output_file_id=batch.output_file_id, error_file_id=batch.error_file_id)
    return ResultFiles(
        partial_output_file_id=batch.output_file_id, partial_error_file_id=batch.error_file_id
    )


def feasibility(verdict: Feasibility) -> FeasibilityObject | None:
    """The verdict on the completion window; null where nothing is known."""
    if verdict.kept == "unknown":
        return None
    earliest_s = verdict.earliest_window_s
    return FeasibilityObject(
        verdict=verdict.kept,
        reason=verdict.reason,
        earliest_completion_window=window_words(earliest_s) if earliest_s is not None else None,
    )


def batch_page(batches: Sequence[BatchObject], *, more: bool) -> BatchPage:
    """A page of rendered batches. `has_more` always: without it the SDKs' cursor walks for ever."""
    return BatchPage(
        data=list(batches),
        first_id=batches[0].id if batches else None,
        last_id=batches[-1].id if batches else None,
        has_more=more,
    )


def model(entry: ModelEntry) -> ModelObject:
    """The Model object, and its prices. `created` is not known of a served model; 0 rather than a
    wrong date.
    """
    return object_of(ModelObject, entry, owned_by=publisher(entry), pricing=money.pricing(entry))


def model_list(entries: Sequence[ModelEntry]) -> ModelListObject:
    return ModelListObject(data=[model(entry) for entry in entries])


def publisher(entry: ModelEntry) -> str:
    """The organization in `org/name`; `lowtide` for a bare name."""
    organization, slash, _ = entry.id.partition("/")
    return organization if slash else "lowtide"


def errors(batch_errors: Sequence[BatchError]) -> LineErrorList | None:
    if not batch_errors:
        return None
    data = tuple(object_of(LineErrorObject, each) for each in batch_errors)
    return LineErrorList(data=data)


def errors_total(batch: Batch) -> int | UnsetType:
    """The number of bad lines if more are bad than are listed; else UNSET."""
    return batch.errors_total if batch.errors_total > len(batch.errors) else UNSET


def request_counts(batch: Batch) -> CountsObject:
    return object_of(CountsObject, batch.counts)


def usage(used: Usage) -> BatchUsage:
    return object_of(
        BatchUsage,
        used,
        input_tokens_details=InputTokensDetails(cached_tokens=used.cached_tokens),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=used.reasoning_tokens),
        unreported_requests=used.unreported,
    )


def seconds(value: float | None) -> int | None:
    return round(value) if value is not None else None
