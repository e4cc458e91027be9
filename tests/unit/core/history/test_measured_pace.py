"""The pace of late, without the time in which the batch was held or waited for its first result."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from lowtide import limits
from lowtide.core.batches.batch import Batch, Counts
from lowtide.core.history.batch_events import BatchEvent
from lowtide.core.history.batch_history import BatchHistory, BatchTotals, advanced
from lowtide.core.history.measured_pace import PaceRecord, held_stretches, measured_pace
from testkit.batches import a_batch

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def event(kind: Literal["paused", "resumed"], seconds: float) -> BatchEvent:
    return BatchEvent(at=after(seconds), kind=kind)


def batch(completed: int, first_result_s: float = 0.0) -> Batch:
    return a_batch(
        NOON,
        status="in_progress",
        in_progress_at=NOON,
        first_settled_at=after(first_result_s),
        counts=Counts(total=10_000, completed=completed),
    )


def seen(*readings: tuple[float, int]) -> BatchHistory:
    """A history after readings of (seconds, requests done)."""
    history = BatchHistory.begin(NOON)
    for seconds, done in readings:
        history = advanced(history, BatchTotals(done), after(seconds))
    return history


def test_the_time_of_a_hold_is_in_no_pace() -> None:
    history = seen((60, 120), (120, 240))
    pauses = [event("paused", 120), event("resumed", 3600)]
    pace = measured_pace(batch(260), PaceRecord(history, pauses), after(3610))
    assert pace.held_s == 3480
    assert pace.recent_per_s == pytest.approx(2.0, rel=0.05)


def test_the_pace_is_that_of_the_last_minutes_and_not_of_the_whole_time() -> None:
    fast = [(60.0 * minute, 600 * minute) for minute in range(1, 31)]
    slow = [(1800 + 60.0 * minute, 18_000 + 60 * minute) for minute in range(1, 21)]
    pace = measured_pace(batch(19_200), PaceRecord(seen(*fast, *slow)), after(3000))
    assert pace.recent_per_s == pytest.approx(1.0, rel=0.05)


def test_the_wait_for_the_first_result_is_in_no_pace() -> None:
    pace = measured_pace(batch(100, first_result_s=500), PaceRecord(seen((600, 100))), after(600))
    assert pace.recent_per_s == pytest.approx(1.0)


def test_a_hold_before_the_first_result_is_left_out_once() -> None:
    pauses = [event("paused", 100), event("resumed", 700)]
    pace = measured_pace(
        batch(100, first_result_s=500), PaceRecord(seen((800, 100)), pauses), after(800)
    )
    assert pace.held_s == 200
    assert pace.recent_per_s == pytest.approx(1.0)


def test_too_short_a_time_is_not_measured() -> None:
    short_s = limits.RECENT_PACE_S_MIN - 1
    assert (
        measured_pace(batch(50), PaceRecord(seen((short_s, 50))), after(short_s)).recent_per_s
        is None
    )


def test_nothing_done_of_late_is_no_pace() -> None:
    history = seen((60, 120))
    assert measured_pace(batch(120), PaceRecord(history), after(5000)).recent_per_s is None


def test_a_batch_is_held_until_the_last_of_its_holds_ends() -> None:
    events = [event("paused", 10), event("paused", 20), event("resumed", 30), event("resumed", 40),
              event("paused", 50), event("resumed", 60)]  # fmt: skip
    stretches = [(after(10), after(40)), (after(50), after(60))]
    assert held_stretches(events, None) == stretches
    assert held_stretches([event("resumed", 5), *events, event("paused", 70)], after(90)) == [
        *stretches, (after(70), after(90))]  # fmt: skip
