"""What happened to a batch, in order: who did what, and when.

Pure. The states that a batch went through are in its own record, so nothing is written for them;
what the record does not keep (pauses, changes, who cancelled, workers that were lost) is noted in
the transaction that does it (store/statements/batch_notes.py). Invariant: an actor is a key's id or
one of the words here, never an address or a host's name.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, Literal

import msgspec

from lowtide.core.batches.batch import Batch

Kind = Literal[
    "created", "queued", "started", "first_result", "paused", "resumed", "changed", "cancel_asked",
    "worker_lost", "input_lost", "results_lost", "settled", "window_over",
    "completed", "failed", "expired", "cancelled",
]  # fmt: skip
"""queued: validated, and it waits for enqueued tokens. started: its requests may run from now on.
settled: all its requests have ended."""

USER: Final = "user"
"""The actor where it is not known which key it was."""
OPERATOR: Final = "operator"
SERVER: Final = "server"


class BatchEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`actor`: a key's id, or `user`, `operator`, `server`. `detail`: more words, or none."""

    at: datetime
    kind: Kind
    actor: str = SERVER
    detail: str = ""


def events_of(batch: Batch, noted: Iterable[BatchEvent]) -> list[BatchEvent]:
    """All that is known to have happened to the batch, the first first."""
    noted = list(noted)
    known = list(_states(batch))
    if any(each.kind == "cancel_asked" for each in noted):  # the note knows who
        known = [each for each in known if each.kind != "cancel_asked"]
    return sorted([*known, *noted], key=lambda event: event.at)


def _states(batch: Batch) -> Iterator[BatchEvent]:
    yield BatchEvent(at=batch.created_at, kind="created", actor=batch.user_id or USER)
    over: Kind = "window_over" if _expires(batch) else "settled"
    rejected = f"{batch.errors_total} errors in the input" if batch.errors_total else ""
    instants: tuple[tuple[datetime | None, Kind, str], ...] = (
        (batch.in_progress_at, "started", f"{batch.counts.total} requests"),
        (batch.first_settled_at, "first_result", ""),
        (batch.cancelling_at, "cancel_asked", ""),
        (batch.finalizing_at, over, ""),
        (batch.completed_at, "completed", ""),
        (batch.failed_at, "failed", rejected),
        (batch.expired_at, "expired", ""),
        (batch.cancelled_at, "cancelled", ""),
    )
    for at, kind, detail in instants:
        if at is not None:
            yield BatchEvent(at=at, kind=kind, detail=detail)


def _expires(batch: Batch) -> bool:
    return batch.status in ("expiring", "expired")
