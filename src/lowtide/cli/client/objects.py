"""The server's objects as the commands read them: those of `api/objects`, with money as numbers.

Whatever else an object holds is kept in the raw answer, which `--json` prints unchanged.
"""

from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from lowtide.api.objects.accounts import KeyObject
from lowtide.api.objects.batches import BatchObject, CountsObject, ExceededObject, LineErrorList
from lowtide.cli.terminal.command_errors import CommandError

JsonObject = dict[str, Any]
_View = TypeVar("_View", bound=msgspec.Struct)

TERMINAL: Final = frozenset({"completed", "failed", "expired", "cancelled"})
"""States after which nothing changes any more; the dialect's words, not the core's."""


class AmountsView(msgspec.Struct, frozen=True):
    """Dollars: what was or would be charged, the live price of the same tokens, the difference."""

    amount: Decimal = Decimal(0)
    live_amount: Decimal = Decimal(0)
    saved: Decimal = Decimal(0)


class BatchView(BatchObject, frozen=True, kw_only=True):
    """A batch, with money as numbers."""

    cost: AmountsView | None = None  # type: ignore[assignment]

    @property
    def counts(self) -> CountsObject:
        return self.request_counts

    @property
    def seen_and_failed(self) -> int:
        """Lines that an engine saw and that failed: those that were never run are counted apart."""
        return self.request_counts.failed - self.not_run_count

    @property
    def output_id(self) -> str | None:
        """The id of the file of results: those so far, or all of them once the batch is over."""
        return self.output_file_id or self.partial_output_file_id

    @property
    def error_id(self) -> str | None:
        """The id of the file of failed lines, so far or of the whole batch."""
        return self.error_file_id or self.partial_error_file_id

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL

    @property
    def ended_at(self) -> int | None:
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at


class HoldsView(msgspec.Struct, frozen=True):
    """The holds of a batch, in the answer to a pause."""

    id: str
    holds: tuple[str, ...] = ()


class ModelEstimateView(AmountsView, frozen=True, kw_only=True):
    model: str
    requests: int
    input_tokens: int
    output_tokens_max: int


class EstimateView(msgspec.Struct, frozen=True):
    """The answer to a dry run."""

    requests: int
    models: tuple[ModelEstimateView, ...]
    totals: AmountsView
    errors: LineErrorList | None = None
    errors_total: int = 0
    warnings: LineErrorList | None = None
    would_exceed: tuple[ExceededObject, ...] = ()


class OrganizationView(msgspec.Struct, frozen=True):
    """`spend_cap`: dollars a month; None: none. `paused_at`: batches wait for it since."""

    id: str
    name: str
    limits: dict[str, int | None] = {}
    spend_cap: Decimal | None = None
    paused_at: int | None = None
    created_at: int | None = None


class KeyView(KeyObject, frozen=True, kw_only=True):
    """`key`: all of it, in the answer to its creation."""

    key: str | None = None


def read_view(answer: Any, view: type[_View]) -> _View:
    """The known fields of the answer. Raises CommandError when the answer is no such object."""
    try:
        return msgspec.convert(answer, view, strict=False)
    except msgspec.ValidationError as error:
        raise CommandError(
            f"The server's answer is not what a Lowtide server sends: {error}",
            "Check --server.",
            code="not_lowtide",
        ) from None
