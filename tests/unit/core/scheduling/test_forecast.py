"""Paces, cells and outlooks: what a pool gets done, learnt from what it did."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from lowtide import limits
from lowtide.core.scheduling.forecast import (
    CapacityForecast,
    Done,
    Hour,
    HourOfWeek,
    Throughput,
    capacity_forecast,
    cell_of,
    hour_of,
)
from lowtide.core.scheduling.operating_hours import OperatingHours, span_of

MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
NOW = MONDAY + timedelta(hours=9, minutes=30)


def driven(rate: float, seconds: float, since: datetime = NOW) -> Throughput:
    """A pool that did `rate` work units a second for that long, a commit every ten seconds."""
    pace = Throughput.begin(since)
    for n in range(1, int(seconds // 10) + 1):
        done = Done(rate * 10, requests=2, output_tokens=100)
        pace, _ = pace.after(done, since + timedelta(seconds=10 * n), backlogged=True)
    return pace


def test_a_pace_is_known_after_a_minute_of_work() -> None:
    assert driven(50, 50).rate is None
    assert driven(50, 120).rate == pytest.approx(50)


def test_a_pace_follows_a_change_within_its_memory() -> None:
    pace = driven(50, 3600)
    at = pace.at
    for n in range(1, 2 * int(limits.PACE_TAU_S) // 10):
        pace, _ = pace.after(Done(100.0), at + timedelta(seconds=10 * n), backlogged=True)
    assert pace.rate == pytest.approx(10, rel=0.6)
    assert pace.rate is not None and pace.rate < 20


def test_answers_are_believed_when_there_are_enough() -> None:
    assert driven(50, 90).output_per_request is None
    assert driven(50, 300).output_per_request == pytest.approx(50)


def test_an_hour_that_closes_teaches_its_cell() -> None:
    pace = driven(50, 1790)
    pace, closed = pace.after(Done(0.0), MONDAY + timedelta(hours=10, seconds=5), backlogged=True)
    assert closed is not None
    assert closed[0] == 9
    assert closed[1] == pytest.approx(50)
    assert pace.hour.at == MONDAY + timedelta(hours=10)


def test_an_hour_with_little_to_do_teaches_nothing() -> None:
    pace = Throughput.begin(NOW)
    for n in range(1, 170):
        now = NOW + timedelta(seconds=10 * n)
        pace, _ = pace.after(Done(500.0), now, backlogged=n < 40)
    _, closed = pace.after(Done(0.0), MONDAY + timedelta(hours=10, seconds=5), backlogged=True)
    assert closed is None


def test_clocks_that_differ_cannot_turn_a_pace_back() -> None:
    pace = driven(50, 600)
    after, _ = pace.after(Done(10.0), pace.at - timedelta(seconds=2), backlogged=True)
    assert (after.at, after.seconds) == (pace.at, pace.seconds)


def test_p20_lies_where_four_weeks_of_five_are_above() -> None:
    rates = [100, 90, 110, 60, 105] * 40
    cell = HourOfWeek(100, 100, 1)
    for rate in rates:
        cell = cell.learned(rate)
    assert 65 < cell.p20 < 92 < cell.p50 < 102
    assert cell.weeks == 201


@pytest.mark.parametrize(
    ("at", "cell"), [(MONDAY, 0), (NOW, 9), (MONDAY - timedelta(seconds=1), 167)]
)
def test_cells_are_the_hours_of_the_week(at: datetime, cell: int) -> None:
    assert cell_of(at) == cell
    assert hour_of(at) <= at < hour_of(at) + timedelta(hours=1)


# ---- the outlook


def test_nothing_learnt_is_no_outlook() -> None:
    assert capacity_forecast(NOW, None, {}) is None
    assert capacity_forecast(NOW, Throughput.begin(NOW), {}) is None
    assert capacity_forecast(NOW, None, {3: HourOfWeek(0.0, 0.0, 1)}) is None


def test_a_pace_alone_goes_on() -> None:
    view = capacity_forecast(NOW, driven(50, 600), {})
    assert view is not None
    assert view.by(NOW + timedelta(hours=2)) == pytest.approx(50 * 7200)
    assert view.seconds_for(50 * 7200) == pytest.approx(7200)


def test_by_and_seconds_for_are_each_others_inverse() -> None:
    view = CapacityForecast(NOW, [10.0, 0.0, 30.0, 5.0] * 50)
    for seconds in (1, 1000, 1800, 5000, 20_000):
        work = view.by(NOW + timedelta(seconds=seconds))
        back = view.seconds_for(work)
        assert back is not None and back <= seconds
        assert view.by(NOW + timedelta(seconds=back)) == pytest.approx(work)
    assert view.seconds_for(0) == 0
    assert view.seconds_for(1e12) is None
    assert view.by(NOW - timedelta(hours=1)) == 0


def test_cells_give_each_hour_its_own_rate() -> None:
    cells = {cell: HourOfWeek(8.0, 10.0 if cell % 24 < 12 else 40.0, 4) for cell in range(168)}
    view = capacity_forecast(MONDAY, None, cells)
    assert view is not None
    assert view.by(MONDAY + timedelta(hours=12)) == pytest.approx(12 * 3600 * 10)
    assert view.by(MONDAY + timedelta(hours=24)) == pytest.approx(12 * 3600 * 50)
    safe = capacity_forecast(MONDAY, None, cells, "p20")
    assert safe is not None and safe.by(MONDAY + timedelta(hours=24)) == pytest.approx(86400 * 8)


def test_an_hour_never_seen_is_taken_for_that_of_other_days_else_for_the_mean() -> None:
    view = capacity_forecast(
        MONDAY, None, {24: HourOfWeek(20.0, 20.0, 1), 25: HourOfWeek(40.0, 40.0, 1)}
    )
    assert view is not None
    assert view.by(MONDAY + timedelta(hours=1)) == pytest.approx(3600 * 20)
    assert view.by(MONDAY + timedelta(hours=2)) == pytest.approx(3600 * 60)
    assert view.by(MONDAY + timedelta(hours=3)) == pytest.approx(3600 * 90)


def test_what_was_just_seen_counts_now_and_fades() -> None:
    cells = {cell: HourOfWeek(100.0, 100.0, 9) for cell in range(168)}
    pace = driven(50, 1200)
    view = capacity_forecast(pace.at, pace, cells)
    assert view is not None
    assert view.rate == pytest.approx(50, rel=0.01)
    day, two = (view.by(pace.at + timedelta(hours=h)) for h in (24, 48))
    assert (two - day) / 86400 == pytest.approx(100, rel=0.01)
    old = capacity_forecast(pace.at + timedelta(hours=5), pace, cells)
    assert old is not None and old.rate == pytest.approx(100), "a pace of this morning is history"


def test_closed_hours_do_no_work() -> None:
    pace = Throughput(at=NOW, work=6000.0, seconds=600.0, hour=Hour(hour_of(NOW)))
    view = capacity_forecast(
        NOW, pace, {}, "p50", OperatingHours(*span_of("22:00-06:00"), ZoneInfo("UTC"))
    )
    assert view is not None
    assert view.by(MONDAY + timedelta(hours=22)) == 0
    assert view.by(MONDAY + timedelta(hours=30)) == pytest.approx(8 * 3600 * 10)
    assert view.by(MONDAY + timedelta(hours=46)) == pytest.approx(8 * 3600 * 10)
    assert view.by(MONDAY + timedelta(hours=54)) == pytest.approx(16 * 3600 * 10)
