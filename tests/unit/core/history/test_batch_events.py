"""The events of a batch: what its record says and what was noted, in one order."""

from datetime import UTC, datetime, timedelta

import msgspec

from lowtide.core.batches.batch import Counts
from lowtide.core.history.batch_events import BatchEvent, events_of
from testkit.batches import a_batch

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BATCH = a_batch(NOON, window_s=3600, user_id="key_1")


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def test_a_batch_that_was_never_touched_tells_its_states() -> None:
    batch = msgspec.structs.replace(
        BATCH,
        status="completed",
        counts=Counts(3, 3),
        in_progress_at=after(1),
        first_settled_at=after(2),
        finalizing_at=after(3),
        completed_at=after(4),
    )
    found = [(each.kind, each.actor, each.detail) for each in events_of(batch, [])]
    assert found == [
        ("created", "key_1", ""),
        ("started", "server", "3 requests"),
        ("first_result", "server", ""),
        ("settled", "server", ""),
        ("completed", "server", ""),
    ]


def test_notes_stand_where_they_happened() -> None:
    batch = msgspec.structs.replace(BATCH, status="in_progress", in_progress_at=after(1))
    notes = [
        BatchEvent(at=after(0.5), kind="paused", actor="key_2"),
        BatchEvent(at=after(2), kind="resumed", actor="key_2"),
    ]
    kinds = [each.kind for each in events_of(batch, notes)]
    assert kinds == ["created", "paused", "started", "resumed"]


def test_a_cancel_is_told_once_with_who_asked_for_it() -> None:
    batch = msgspec.structs.replace(BATCH, status="cancelling", cancelling_at=after(2))
    assert [each.kind for each in events_of(batch, [])] == ["created", "cancel_asked"]
    note = BatchEvent(at=after(2), kind="cancel_asked", actor="key_3")
    assert events_of(batch, [note])[1:] == [note]


def test_a_batch_whose_window_ended_says_so() -> None:
    batch = msgspec.structs.replace(
        BATCH, status="expired", finalizing_at=after(60), expired_at=after(61)
    )
    assert [each.kind for each in events_of(batch, [])] == ["created", "window_over", "expired"]
