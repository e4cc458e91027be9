"""What rows, bars and steps of pages and reports say of a batch, beside the API's fields. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from lowtide.api.console.batches.ended_reason import ended_because
from lowtide.api.objects.batches import BatchObject
from lowtide.core.batches.batch import STEERABLE, TERMINAL, Batch

Context = dict[str, Any]
"""What a template is filled with."""


def row_of(batch: BatchObject, filenames: Mapping[str, str]) -> Context:
    """A batch with what a page says of it beside the object's own fields. `failed`: lines that an
    engine saw; those that were never run are not called failed.
    """
    counts = batch.request_counts
    failed = counts.failed - batch.not_run_count
    total = max(counts.total, 1)
    filename = filenames.get(batch.input_file_id, "")
    return {
        "batch": batch,
        "name": name_of(batch, filename),
        "filename": filename,
        "counts": counts,
        "done_share": counts.completed / total,
        "failed": failed,
        "failed_share": failed / total,
        "has_ended": batch.status in TERMINAL,
        "is_steerable": batch.status in STEERABLE,
        "shown_state": shown_state(batch),
        "ended_because": ended_because(batch),
    }


def name_of(batch: Batch | BatchObject, filename: str | None) -> str:
    """What pages call a batch: the name that it was given, else that of its file, else its id."""
    return batch.metadata.get("name") or filename or batch.id


def mean_rate(batch: Batch, now: datetime) -> float | None:
    """Requests a second since they began, of a batch that runs; None where none has ended, or a
    hold bars them."""
    if batch.status != "in_progress" or batch.in_progress_at is None or batch.holds:
        return None
    seconds = (now - batch.in_progress_at).total_seconds()
    done = batch.counts.completed + batch.counts.failed
    return done / seconds if done and seconds > 0 else None


_STEPS: Final = (
    ("validating", "Validating", "created_at"),
    ("in_progress", "Running", "in_progress_at"),
    ("finalizing", "Writing results", "finalizing_at"),
)


def steps_of(batch: BatchObject) -> list[Context]:
    """The states that the batch went through, with the instant of each, and the end ahead."""
    steps = [
        {"name": name, "at": getattr(batch, at), "is_now": batch.status == status}
        for status, name, at in _STEPS
    ]
    ends = {
        "completed": batch.completed_at,
        "failed": batch.failed_at,
        "expired": batch.expired_at,
        "cancelled": batch.cancelled_at,
    }
    ended = ends.get(batch.status)
    if batch.status in ends or batch.status == "cancelling":
        steps = [each for each in steps if each["at"] is not None]
    if batch.status == "cancelling":
        steps.append({"name": "Cancelling", "at": batch.cancelling_at, "is_now": True})
    if batch.status == "in_progress" and batch.holds:
        steps[1]["is_now"] = False
        steps.insert(2, {"name": "Paused", "at": _held_since(batch), "is_now": True})
    last = batch.status.capitalize() if ended is not None else _end_ahead(batch)
    steps.append({"name": last, "at": ended, "is_now": False})
    return steps


def shown_state(batch: BatchObject) -> str:
    """The one state that pages name: a batch that is held is paused, whatever it would do."""
    return "paused" if batch.holds and batch.status in STEERABLE else batch.status


def _held_since(batch: BatchObject) -> int | None:
    """The instant from which it is held, in Unix seconds; None where that is not known."""
    known = [each.since for each in batch.waiting_reasons if each.kind == "paused"]
    return min((each for each in known if each is not None), default=None)


def _end_ahead(batch: BatchObject) -> str:
    """How the batch will end if nothing else happens to it."""
    if batch.status == "cancelling":
        return "Cancelled"
    if batch.finalizing_at is not None and batch.expires_at is not None:
        # results are written from the deadline on because the window ended: see core/batches/batch
        return "Expired" if batch.finalizing_at >= batch.expires_at else "Completed"
    return "Completed"
