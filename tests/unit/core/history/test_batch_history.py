"""Rates of a batch: where work is put that is seen late, and what happens as it gets older."""

from datetime import UTC, datetime, timedelta

from lowtide import limits
from lowtide.core.history.batch_history import BatchHistory, BatchTotals, advanced, spans

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_work_is_spread_over_the_time_since_the_last_look() -> None:
    history = advanced(BatchHistory.begin(NOON), BatchTotals(10, 0, 1000, 100), after(10))
    assert [(each.index, each.done.completed) for each in history.buckets] == [(0, 5), (1, 5)]
    history = advanced(history, BatchTotals(13, 1, 1300, 130), after(12.5))
    assert [(each.index, each.done.requests) for each in history.buckets] == [
        (0, 5),
        (1, 5),
        (2, 4),
    ]


def test_what_was_done_after_a_long_pause_was_done_at_its_end() -> None:
    history = advanced(BatchHistory.begin(NOON), BatchTotals(10), after(10))
    history = advanced(history, BatchTotals(70), after(1000))
    late = [each for each in history.buckets if each.index >= 2]
    assert sum(each.done.completed for each in late) == 60
    assert min(each.index for each in late) * history.width_s >= 1000 - limits.HISTORY_SPREAD_S


def test_a_clock_that_is_behind_moves_nothing_back() -> None:
    history = advanced(BatchHistory.begin(NOON), BatchTotals(10), after(100))
    history = advanced(history, BatchTotals(12), after(40))
    assert history.seen_at == after(100)
    assert sum(each.done.completed for each in history.buckets) == 12


def test_results_that_were_lost_and_run_again_count_twice_and_never_below_zero() -> None:
    history = advanced(BatchHistory.begin(NOON), BatchTotals(10), after(5))
    history = advanced(history, BatchTotals(4), after(10))
    history = advanced(history, BatchTotals(10), after(15))
    assert sum(each.done.completed for each in history.buckets) == 16


def test_buckets_get_twice_as_wide_whenever_the_batch_outgrows_them() -> None:
    history, at = BatchHistory.begin(NOON), 0.0
    widths = []
    for number in range(1, 4 * limits.HISTORY_BUCKETS_MAX):
        at = number * limits.HISTORY_BUCKET_S
        history = advanced(history, BatchTotals(number), after(at))
        widths.append(history.width_s)
    assert sorted(set(widths)) == [limits.HISTORY_BUCKET_S * factor for factor in (1, 2, 4)]
    assert widths == sorted(widths)
    assert {each.done.completed for each in history.buckets[:-1]} == {4}


def test_a_reader_gets_every_stretch_of_time_also_without_work() -> None:
    history = advanced(BatchHistory.begin(NOON), BatchTotals(5), after(5))
    shown = spans(history, after(17))
    assert [each.at for each in shown] == [NOON, after(5), after(10), after(15)]
    assert [each.done.completed for each in shown] == [5, 0, 0, 0]
    assert [each.seconds for each in shown] == [5, 5, 5, 2]


def test_a_batch_that_has_just_begun_has_one_stretch() -> None:
    (only,) = spans(BatchHistory.begin(NOON), NOON)
    assert (only.at, only.seconds, only.done) == (NOON, 1.0, BatchTotals())
