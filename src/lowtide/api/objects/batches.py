"""Batches as each vendor shows them, and Lowtide's own estimate (protocol.md sections 2.2, 2.7,
3.3).

`api/dialects` makes them, the document has their schemas, and the command line reads them. Fields
have defaults for readers alone: the server sends every field that is not UNSET.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from lowtide.api.objects.amounts import AmountsObject
from lowtide.core.batches.batch import Counts


class CountsObject(Counts, frozen=True):
    """Counts of requests."""

    @property
    def to_go(self) -> int:
        """Requests that have not ended."""
        return max(0, self.total - self.settled)


class InputTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    reasoning_tokens: int = 0


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of all answers. `unreported_requests`: answers whose usage was estimated."""

    input_tokens: int = 0
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int = 0
    unreported_requests: int = 0

    @property
    def cached_tokens(self) -> int:
        """Input tokens that an engine had in its prefix cache."""
        return self.input_tokens_details.cached_tokens


class LineErrorObject(msgspec.Struct, frozen=True):
    """What is wrong with a line; `line` counts from 1, null for the file as a whole."""

    code: str | None = None
    message: str = ""
    line: int | None = None
    param: str | None = None


class LineErrorList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[LineErrorObject, ...] = ()


class FeasibilityObject(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the completion window can be kept."""

    verdict: str
    reason: str | None = None
    earliest_completion_window: str | None = None


class WaitingReason(msgspec.Struct, frozen=True, kw_only=True):
    """One condition that holds a batch. `kind` is a word for programs, `reason` the sentence with
    its number. `remedy` says what ends it; null where `reason` does. `since`: when it began, in
    Unix seconds; null where that is not known.
    """

    kind: str
    reason: str
    remedy: str | None = None
    since: int | None = None


class JobWaitingReason(WaitingReason, frozen=True, kw_only=True):
    """The same in a BatchJob: `since` is ISO 8601."""

    since: str | None = None  # type: ignore[assignment]


class ResultFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of result files: whole ones once the batch has ended, partial ones before."""

    output_file_id: str | None = None
    error_file_id: str | None = None
    partial_output_file_id: str | None = None
    partial_error_file_id: str | None = None


BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
JobStatus = Literal["VALIDATING", "IN_PROGRESS", "COMPLETED", "FAILED", "EXPIRED", "CANCELLED"]


class BatchObject(ResultFiles, frozen=True, kw_only=True):
    """OpenAI's Batch, with Lowtide's keys after its own. Instants are Unix seconds.

    `waiting_reasons`: all conditions that hold it at present; the first is the gravest, and is what
    `reason` says. Empty while it moves.

    `not_run_count`: of a batch that ended early, how many of `request_counts.failed` no engine saw.

    `cautious_eta_seconds` and `cautious_completion_at`: until when it is done at the pace that is
    reached in four weeks of five, or at its own of the last ten minutes, whichever is later; null
    where that is unknown, or not a minute later than the usual end.
    """

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str = ""
    model: str | None = None
    errors: LineErrorList | None = None
    warnings: LineErrorList | None = None
    input_file_id: str = ""
    completion_window: str = ""
    status: BatchStatus
    created_at: int | None = None
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: CountsObject = CountsObject()
    usage: BatchUsage | None = None
    cost: AmountsObject | None = None
    metadata: dict[str, str] = {}
    priority: int = 0
    stage: str | None = None
    reason: str | None = None
    waiting_reasons: tuple[WaitingReason, ...] = ()
    queue_position: int | None = None
    eta_seconds: int | None = None
    estimated_completion_at: int | None = None
    cautious_eta_seconds: int | None = None
    cautious_completion_at: int | None = None
    feasibility: FeasibilityObject | None = None
    not_run_count: int = 0
    retry_of: str | None = None
    holds: tuple[str, ...] = ()
    webhook: str | None = None
    errors_total: int | UnsetType = UNSET


class BatchJob(ResultFiles, frozen=True, kw_only=True):
    """Together's BatchJob, with Lowtide's keys after its own. Instants are ISO 8601.

    `cautious_eta_seconds` and `cautious_completion_at`: until when it is done at the pace that is
    reached in four weeks of five, or at its own of the last ten minutes, whichever is later; null
    where that is unknown, or not a minute later than the usual end.
    """

    id: str
    user_id: str
    input_file_id: str
    file_size_bytes: int
    status: JobStatus
    job_deadline: str
    created_at: str
    endpoint: str
    progress: float
    model_id: str | None
    error: str | None
    completed_at: str | None
    completion_window: str
    in_progress_at: str | None
    cancelling_at: str | None
    ended_at: str | None
    request_counts: CountsObject
    usage: BatchUsage
    cost: AmountsObject
    errors: LineErrorList | None
    warnings: LineErrorList | None
    metadata: dict[str, str]
    priority: int
    stage: str | None
    reason: str | None
    waiting_reasons: tuple[JobWaitingReason, ...]
    queue_position: int | None
    eta_seconds: int | None
    estimated_completion_at: str | None
    cautious_eta_seconds: int | None
    cautious_completion_at: str | None
    feasibility: FeasibilityObject | None
    not_run_count: int
    retry_of: str | None
    holds: tuple[str, ...]
    webhook: str | None
    errors_total: int | UnsetType = UNSET


class BatchHolds(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch starts no further requests, for its operator: `user`, `operator`, `spend_cap`."""

    id: str
    holds: tuple[str, ...]


class CreatedJob(msgspec.Struct, frozen=True, kw_only=True):
    """Together's answer to a create; its command shows `warning`."""

    job: BatchJob
    warning: str | UnsetType = UNSET


class CreatedBatch(BatchObject, frozen=True, kw_only=True):
    """The answer to a create where both vendors' clients ask: the batch, and `job` beside it."""

    job: BatchJob
    warning: str | UnsetType = UNSET


class BatchPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page, newest first."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelEstimateObject(AmountsObject, frozen=True, kw_only=True):
    """One model's part of a batch that would be made."""

    model: str
    requests: int
    input_tokens: int
    output_tokens_max: int


class TotalsObject(AmountsObject, frozen=True, kw_only=True):
    """The sums over all models."""

    input_tokens: int = 0
    output_tokens_max: int = 0


class ExceededObject(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that the batch would pass. Whole numbers, or dollars as decimal strings."""

    limit: str
    code: str
    model: str | None = None
    allowed: int | str | None = None
    used: int | str | None = None
    asked: int | str | None = None


class EstimateObject(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a dry run: tokens in are estimates, tokens out the bounds of the lines."""

    object: Literal["batch.estimate"] = "batch.estimate"
    input_file_id: str = ""
    endpoint: str = ""
    requests: int
    models: tuple[ModelEstimateObject, ...]
    totals: TotalsObject
    errors: LineErrorList | None = None
    errors_total: int = 0
    warnings: LineErrorList | None = None
    feasibility: FeasibilityObject | None = None
    would_exceed: tuple[ExceededObject, ...] = ()
