"""A batch's history, whoever looks and whenever: it adds up, and it stays small."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.core.history.batch_history import NOTHING, BatchHistory, BatchTotals, advanced, spans

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
growth = st.builds(BatchTotals, *(st.integers(0, 10_000) for _ in range(4)))
pauses = st.one_of(st.floats(0, 12), st.floats(0, 90), st.floats(0, 5 * 86_400))
readings = st.lists(st.tuples(pauses, growth, st.booleans()), max_size=80)


def added_up(history: BatchHistory) -> BatchTotals:
    total = NOTHING
    for bucket in history.buckets:
        total = total.plus(bucket.done)
    return total


@given(readings)
def test_buckets_add_up_to_the_counters_and_stay_few(
    story: list[tuple[float, BatchTotals, bool]],
) -> None:
    history, totals, at = BatchHistory.begin(NOON), NOTHING, NOON
    for seconds, more, is_seen_twice in story:
        at += timedelta(seconds=seconds)
        totals = totals.plus(more)
        history = advanced(history, totals, at)
        if is_seen_twice:  # another worker looks at the same counters
            history = advanced(history, totals, at - timedelta(seconds=seconds / 2))
        assert added_up(history) == totals
        assert len(history.buckets) <= limits.HISTORY_BUCKETS_MAX
        indices = [bucket.index for bucket in history.buckets]
        assert indices == sorted(set(indices))
        assert all(0 <= index < limits.HISTORY_BUCKETS_MAX for index in indices)
    shown = spans(history, at)
    assert 1 <= len(shown) <= limits.HISTORY_BUCKETS_MAX
    total = NOTHING
    for span in shown:
        total = total.plus(span.done)
        assert 0 < span.seconds <= history.width_s * 2
    assert total == totals


@given(readings, st.floats(0, 20 * 86_400))
def test_a_history_is_the_same_whether_it_was_widened_once_or_on_the_way(
    story: list[tuple[float, BatchTotals, bool]], later_s: float
) -> None:
    """Who reads it later finds the buckets that a look at that time would have made."""
    history, totals, at = BatchHistory.begin(NOON), NOTHING, NOON
    for seconds, more, _ in story:
        at += timedelta(seconds=seconds)
        totals = totals.plus(more)
        history = advanced(history, totals, at)
    later = at + timedelta(seconds=later_s)
    assert spans(history, later) == spans(advanced(history, totals, later), later)
