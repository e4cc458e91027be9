"""The server's objects as the commands read them: only the fields that are shown or decided on.

Shapes are those of the OpenAI dialect (protocol.md section 3) and our additions to it; whatever
else an object holds is kept in the raw answer, which `--json` prints unchanged.
"""

from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from lowtide.cli.terminal.command_errors import CommandError

JsonObject = dict[str, Any]
_View = TypeVar("_View", bound=msgspec.Struct)

TERMINAL: Final = frozenset({"completed", "failed", "expired", "cancelled"})
"""States after which nothing changes any more; the dialect's words, not the core's."""


class CountsView(msgspec.Struct, frozen=True):
    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def settled(self) -> int:
        return self.completed + self.failed

    @property
    def not_run(self) -> int:
        return max(0, self.total - self.settled)


class InputDetailsView(msgspec.Struct, frozen=True):
    cached_tokens: int = 0


class UsageView(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: InputDetailsView | None = None

    @property
    def cached_tokens(self) -> int:
        return self.input_tokens_details.cached_tokens if self.input_tokens_details else 0


class AmountsView(msgspec.Struct, frozen=True):
    """Dollars: what was or would be charged, the live price of the same tokens, the difference."""

    amount: Decimal = Decimal(0)
    live_amount: Decimal = Decimal(0)
    saved: Decimal = Decimal(0)


class BatchErrorView(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str = ""
    line: int | None = None
    param: str | None = None


class BatchErrorsView(msgspec.Struct, frozen=True):
    data: tuple[BatchErrorView, ...] = ()


class FeasibilityView(msgspec.Struct, frozen=True):
    """Whether the completion window can be kept."""

    verdict: str
    reason: str | None = None
    earliest_completion_window: str | None = None


class BatchView(msgspec.Struct, frozen=True):
    """A batch. Instants are Unix seconds."""

    id: str
    status: str
    endpoint: str = ""
    input_file_id: str = ""
    created_at: int | None = None
    expires_at: int | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelled_at: int | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    partial_output_file_id: str | None = None
    partial_error_file_id: str | None = None
    request_counts: CountsView | None = None
    usage: UsageView | None = None
    cost: AmountsView | None = None
    errors: BatchErrorsView | None = None
    metadata: dict[str, str] | None = None
    reason: str | None = None
    stage: str | None = None
    eta_seconds: int | None = None
    feasibility: FeasibilityView | None = None
    errors_total: int | None = None
    warnings: BatchErrorsView | None = None
    model: str | None = None

    @property
    def output_id(self) -> str | None:
        """The file of the results so far; of all of them once the batch is over."""
        return self.output_file_id or self.partial_output_file_id

    @property
    def error_id(self) -> str | None:
        """The same of the failed lines."""
        return self.error_file_id or self.partial_error_file_id

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL

    @property
    def counts(self) -> CountsView:
        return self.request_counts or CountsView()

    @property
    def ended_at(self) -> int | None:
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at


class ModelEstimateView(AmountsView, frozen=True, kw_only=True):
    model: str
    requests: int
    input_tokens: int
    output_tokens_max: int


class ExceededView(msgspec.Struct, frozen=True):
    """A limit that a batch would pass. Whole numbers, or dollars as decimal strings."""

    limit: str
    code: str
    allowed: int | str | None = None
    used: int | str | None = None
    asked: int | str | None = None
    model: str | None = None


class EstimateView(msgspec.Struct, frozen=True):
    """The answer to a dry run."""

    requests: int
    models: tuple[ModelEstimateView, ...]
    totals: AmountsView
    errors: BatchErrorsView | None = None
    errors_total: int = 0
    warnings: BatchErrorsView | None = None
    would_exceed: tuple[ExceededView, ...] = ()


class FileView(msgspec.Struct, frozen=True):
    id: str
    filename: str = ""
    bytes: int = 0
    purpose: str = ""
    created_at: int | None = None
    expires_at: int | None = None
    status: str | None = None


class OrganizationView(msgspec.Struct, frozen=True):
    """`spend_cap`: dollars a month; None: none."""

    id: str
    name: str
    limits: dict[str, int | None] = {}
    spend_cap: Decimal | None = None
    created_at: int | None = None


class ProjectView(msgspec.Struct, frozen=True):
    id: str
    name: str
    organization_id: str
    created_at: int | None = None


class KeyView(msgspec.Struct, frozen=True):
    """`hint`: the last characters of the key. `key`: all of it, in the answer to its creation."""

    id: str
    name: str
    project_id: str
    scopes: tuple[str, ...] = ()
    hint: str = ""
    key: str | None = None
    created_at: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None


def read_view(answer: Any, view: type[_View]) -> _View:
    """The fields we know. Raises CommandError when the answer is no such object."""
    try:
        return msgspec.convert(answer, view, strict=False)
    except msgspec.ValidationError as error:
        raise CommandError(
            f"The server's answer is not what a Lowtide server sends: {error}",
            "Check --server.",
            code="not_lowtide",
        ) from None
