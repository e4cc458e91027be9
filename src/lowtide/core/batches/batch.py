"""The life of a batch: its states, its table, its record.

The one place that says which state may follow which. Stores guard every change with `step`'s result
(`UPDATE ... WHERE status = :from`), so a transition that is not in the table cannot happen. The
diagram in docs/architecture.md is made from `TRANSITIONS`.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from lowtide.core.usage import NO_USAGE, Usage

Status = Literal[
    "validating",
    "in_progress",
    "finalizing",
    "expiring",
    "cancelling",
    "completed",
    "failed",
    "expired",
    "cancelled",
]
"""The states of a batch. `expiring` is Lowtide's own: its window is over, and what finished is
being assembled. The dialects show it as OpenAI's `finalizing` and Together's `IN_PROGRESS`.
"""

Event = Literal[
    "planned", "rejected", "settled", "input_lost", "results_lost", "cancel", "expire", "assembled"
]
"""The events of a batch. The two `_lost` follow from blobs that are gone: without its input a batch
ends with what it has; without a part of its results it runs that part again.
"""

Dialect = Literal["openai", "together"]

Hold = Literal["user", "operator", "spend_cap"]
"""Why a batch starts no further requests. user: a user of its project paused it. operator: the
operator of the installation did. spend_cap: its organization has spent what it may in this calendar
month."""

InFlight = Literal["finish", "abort"]
"""What becomes of the calls of a held batch that are under way."""


def _table() -> Mapping[Status, Mapping[Event, Status]]:
    rows: dict[Status, dict[Event, Status]] = {
        "validating": {
            "planned": "in_progress",
            "rejected": "failed",
            "cancel": "cancelling",
            "expire": "expiring",
        },
        "in_progress": {
            "settled": "finalizing",
            "input_lost": "finalizing",
            "cancel": "cancelling",
            "expire": "expiring",
        },
        "finalizing": {"assembled": "completed", "results_lost": "in_progress"},
        "expiring": {"assembled": "expired"},
        "cancelling": {"assembled": "cancelled"},
        "completed": {},
        "failed": {},
        "expired": {},
        "cancelled": {},
    }
    return MappingProxyType({state: MappingProxyType(row) for state, row in rows.items()})


STEERABLE: Final[frozenset[Status]] = frozenset({"validating", "in_progress"})
"""A batch that may yet start requests: it can be held and changed."""

TRANSITIONS: Final = _table()
TERMINAL: Final[frozenset[Status]] = frozenset(s for s, row in TRANSITIONS.items() if not row)
ASSEMBLING: Final[frozenset[Status]] = frozenset(
    s for s, row in TRANSITIONS.items() if "assembled" in row
)
"""Nothing is dispatched any more; waits for its last leased chunks, then is assembled."""


class IllegalTransition(Exception):
    """The event cannot happen in that state."""

    def __init__(self, status: Status, event: Event) -> None:
        super().__init__(f"a batch that is {status} cannot take the event {event}")
        self.status = status
        self.event = event


def step(status: Status, event: Event) -> Status:
    """The state after `event`. Raises IllegalTransition when the table has no such cell."""
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise IllegalTransition(status, event) from None


def with_hold(holds: tuple[Hold, ...], hold: Hold) -> tuple[Hold, ...]:
    """The set with that hold, too, sorted."""
    return tuple(sorted({*holds, hold}))


def without_hold(holds: tuple[Hold, ...], hold: Hold) -> tuple[Hold, ...]:
    """The set without that hold."""
    return tuple(each for each in holds if each != hold)


def sources_of(event: Event) -> tuple[Status, ...]:
    """The states in which `event` may happen, for guarded updates."""
    return tuple(state for state, row in TRANSITIONS.items() if event in row)


Flex = Literal["awaited", "background"]
"""A batch that a single call became, at the price of a batch (service/live/flex.py). awaited: its
callers wait on their connections. background: one Responses call, to be retrieved."""


class Counts(msgspec.Struct, frozen=True):
    """Requests. `completed` + `failed` never passes `total` and never falls."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def settled(self) -> int:
        return self.completed + self.failed

    @property
    def percent(self) -> float:
        """0 to 100; 0 while the total is unknown."""
        return 100.0 * self.settled / self.total if self.total else 0.0


class BatchError(msgspec.Struct, frozen=True):
    """One reason why validation failed, or one of its warnings; `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


PASSING_ERRORS: Final = frozenset({"token_limit_exceeded", "spend_cap_exceeded"})
"""Codes of a batch that failed although its lines are good: it reached a limit of its organization,
so another batch over the same file may be taken later."""

INPUT_LOST: Final = BatchError(
    "input_lost",
    "The content of the input file was lost while the batch ran. The output file has what finished"
    " before; the other requests are in the error file. Upload the input again to run those.",
)


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One job over one input file, as the store keeps it. Instants are aware UTC."""

    id: str
    project_id: str
    user_id: str
    dialect: Dialect
    input_file_id: str
    input_bytes: int
    endpoint: str
    status: Status = "validating"
    completion_window_s: int
    metadata: Mapping[str, str] = {}
    priority: int = 0
    output_expires_after_s: int | None = None
    created_at: datetime
    expires_at: datetime
    queued_at: datetime | None = None
    """When it began to wait, planned and still `validating`, for enqueued tokens; None: it does
    not wait."""
    in_progress_at: datetime | None = None
    finalizing_at: datetime | None = None
    cancelling_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    expired_at: datetime | None = None
    cancelled_at: datetime | None = None
    first_settled_at: datetime | None = None
    last_settled_at: datetime | None = None
    counts: Counts = Counts()
    usage: Usage = NO_USAGE
    errors: tuple[BatchError, ...] = ()
    errors_total: int = 0
    warnings: tuple[BatchError, ...] = ()
    """What validation found that stops nothing, and its submitter should know."""
    output_file_id: str | None = None
    error_file_id: str | None = None
    plan_key: str | None = None
    model: str | None = None
    """The canonical model id when the whole file names one; None when mixed or not yet known."""
    holds: tuple[Hold, ...] = ()
    """Why it starts no further requests, sorted; empty while it may."""
    held_at: datetime | None = None
    """The instant from which it has holds; None: it has none, or that is not known."""
    in_flight: InFlight | None = None
    """What becomes of its calls under way; None without a hold."""
    retry_of: str | None = None
    """The batch whose lines without success this one runs again."""
    root_id: str | None = None
    """The first batch of its tree of retries; None for that one itself."""
    model_override: str | None = None
    """The model that all lines run on, whatever they name."""
    deletes_input: bool | None = None
    """Its input file is deleted when it ends."""
    webhook: str | None = None
    """Where its end is told, beside the endpoints that ask for all: an endpoint's id, or an address
    without what may be secret in it."""
    deleted_at: datetime | None = None
    """Hidden since, and its results are gone."""
    flex: Flex | None = None
    """What single calls it was made of; None for the batches that lists show."""

    @property
    def aborts_calls(self) -> bool:
        """Whether its calls under way are to be aborted: it does not run, or is held for that."""
        return self.status != "in_progress" or (bool(self.holds) and self.in_flight != "finish")

    @property
    def ended_at(self) -> datetime | None:
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at

    @property
    def tree_id(self) -> str:
        """The first batch of the tree of retries that it belongs to: itself, if it is no retry."""
        return self.root_id or self.id


INSTANT_OF: Final[Mapping[Status, str]] = MappingProxyType(
    {
        "in_progress": "in_progress_at",
        "finalizing": "finalizing_at",
        "expiring": "finalizing_at",
        "cancelling": "cancelling_at",
        "completed": "completed_at",
        "failed": "failed_at",
        "expired": "expired_at",
        "cancelled": "cancelled_at",
    }
)
"""The field that records when a state was entered."""


def output_file_id(batch_id: str) -> str:
    """Known from the start, so that assembling twice names the same file."""
    return f"file-out-{batch_id.rpartition('_')[2]}"


def error_file_id(batch_id: str) -> str:
    return f"file-err-{batch_id.rpartition('_')[2]}"
