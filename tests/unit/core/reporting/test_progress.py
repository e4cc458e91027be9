"""Stage, estimate and reason, decided from values alone."""

from datetime import UTC, datetime, timedelta

import pytest

from lowtide.core.batches.batch import Batch, Counts, Status
from lowtide.core.history.measured_pace import MeasuredPace
from lowtide.core.reporting.progress import Prospect, eta_s, progress_of, stage_of
from lowtide.core.reporting.standing import NOTHING_KNOWN, Hold, Standing
from testkit.batches import a_batch

START = datetime(2026, 11, 21, tzinfo=UTC)


def batch(status: Status = "in_progress", settled: int = 0, total: int = 100) -> Batch:
    return a_batch(
        START,
        status=status,
        first_settled_at=START if settled else None,
        counts=Counts(total=total, completed=settled),
    )


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("status", "settled", "stage"),
    [
        ("validating", 0, "validation"),
        ("in_progress", 0, "queuing"),
        ("in_progress", 1, "processing"),
        ("finalizing", 100, "aggregation"),
        ("expiring", 1, "aggregation"),
        ("cancelling", 1, "aggregation"),
        ("completed", 100, None),
        ("failed", 0, None),
        ("expired", 1, None),
        ("cancelled", 1, None),
    ],
)
def test_every_status_has_its_stage(status: Status, settled: int, stage: str | None) -> None:
    assert stage_of(batch(status, settled)) == stage


def test_the_estimate_goes_on_at_the_pace_so_far() -> None:
    assert eta_s(batch(settled=11), at(100)) == pytest.approx(890.0)
    progress = progress_of(batch(settled=11), at(100))
    assert progress.completion_at == at(990)


@pytest.mark.parametrize(
    ("settled", "total", "seconds"),
    [(0, 100, 100), (1, 100, 100), (4, 1000, 100), (50, 100, 4.9)],
)
def test_too_little_to_go_by_gives_no_estimate(settled: int, total: int, seconds: float) -> None:
    assert eta_s(batch(settled=settled, total=total), at(seconds)) is None


def test_a_small_share_is_enough_when_the_batch_is_small() -> None:
    assert eta_s(batch(settled=2, total=200), at(10)) is not None
    assert eta_s(batch(settled=5, total=1_000_000), at(10)) is not None


def test_there_is_no_estimate_outside_of_processing() -> None:
    assert eta_s(batch("finalizing", 100), at(100)) is None


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_a_batch_that_ended_waits_for_nothing(status: Status) -> None:
    ended = progress_of(batch(status, 3), at(999), models=["m"], standing=Standing(live=("w",)))
    assert (ended.stage, ended.eta_s, ended.reason) == (None, None, None)


def test_the_reason_is_the_one_for_tenants() -> None:
    hold = Hold("unreachable", "http://10.0.0.1:8000/v1: refused", "refused")
    standing = Standing(live=("w",), models={"m": hold})
    reported = progress_of(batch(), at(9), models=["m"], standing=standing)
    assert reported.reason == "The model m is not available: refused."


@pytest.mark.parametrize(
    ("standing", "is_foreseen"),
    [
        (NOTHING_KNOWN, True),
        (Standing(live=("w",), models={"m": None}), True),
        (Standing(live=("w",), models={"m": Hold("live_first", "live load 9 %", "x")}), True),
        (Standing(live=("w",), models={"m": Hold("closed", "opens 22:00", "x")}), True),
        (Standing(live=("w",), models={"m": Hold("unreachable", "refused", "x")}), False),
        (Standing(live=("w",), models={}), False),
        (Standing(), False),
    ],
)
def test_an_end_is_foreseen_where_what_holds_the_batch_passes_by_itself(
    standing: Standing, is_foreseen: bool
) -> None:
    reported = progress_of(batch(settled=11), at(100), models=["m"], standing=standing)
    assert (reported.eta_s is not None) == is_foreseen


def test_the_cautious_end_is_told_beside_the_usual_one_that_it_belongs_to() -> None:
    prospect = Prospect(600.0, 900.0)
    reported = progress_of(batch(settled=11), at(100), prospect=prospect)
    assert (reported.completion_at, reported.cautious_completion_at) == (at(700), at(1000))
    assert reported.cautious_eta_s == 900.0
    own = progress_of(batch(settled=11), at(100), prospect=prospect, in_flight_max=4)
    assert own.eta_s == pytest.approx(890.0)
    assert (own.cautious_eta_s, own.cautious_completion_at) == (None, None)


def test_the_estimate_after_a_hold_is_at_the_pace_outside_of_it() -> None:
    pace = MeasuredPace(held_s=3600.0, recent_per_s=0.1)
    reported = progress_of(batch(settled=11), at(3700), pace=pace)
    assert (reported.eta_s, reported.cautious_eta_s) == (pytest.approx(890.0), None)


def test_the_cautious_end_is_no_earlier_than_the_pace_of_late_gives() -> None:
    def cautious_s(prospect: Prospect, per_s: float | None) -> float | None:
        pace = MeasuredPace(recent_per_s=per_s)
        return progress_of(batch(settled=10), at(100), prospect=prospect, pace=pace).cautious_eta_s

    assert cautious_s(Prospect(600.0, 700.0), 0.05) == pytest.approx(1800.0)
    assert cautious_s(Prospect(600.0, 700.0), 0.2) == 700.0
    assert cautious_s(Prospect(600.0), 0.05) == pytest.approx(1800.0)
    assert cautious_s(Prospect(600.0, 659.0), 0.149) is None, "it tells no more than the usual end"


def test_a_pace_that_quickened_does_not_make_the_end_by_the_mean_cautious() -> None:
    slower, quicker = (
        progress_of(batch(settled=11), at(100), pace=MeasuredPace(recent_per_s=per_s))
        for per_s in (0.05, 0.5)
    )
    assert slower.cautious_eta_s == pytest.approx(1780.0)
    assert quicker.cautious_eta_s is None
