"""How old reports are by the clock of who reads them."""

from datetime import UTC, datetime, timedelta

import pytest

from lowtide.core.reporting.report_age import ReportAges
from lowtide.core.reporting.standing import split
from lowtide.core.reporting.worker_report import BatchReport, ReplicaReport, WorkerReport

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = 3600.0


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def report(seen_s: float, worker_id: str = "w") -> WorkerReport:
    """A report dated `seen_s` after noon; all that it tells of began 5 s before."""
    began = at(seen_s - 5.0)
    return WorkerReport(
        worker_id=worker_id,
        seen_at=at(seen_s),
        ttl_s=30.0,
        replicas=(ReplicaReport(name="a", since=began), ReplicaReport(name="b")),
        validating="v",
        validating_since=began,
        batches=(BatchReport(id="x", moved_at=began),),
    )


class Reader:
    """Reads at seconds after noon, as its own clock has it."""

    def __init__(self) -> None:
        self.ages = ReportAges()

    def reads(self, seconds: float, *reports: WorkerReport) -> list[WorkerReport]:
        self.ages.see(reports, at(seconds), seconds)
        return self.ages.dated(reports, at(seconds), seconds)

    def lives(self, seconds: float, *reports: WorkerReport) -> bool:
        live, _ = split(self.reads(seconds, *reports), at(seconds))
        return bool(live)


def test_where_clocks_agree_a_report_is_passed_on_as_it_is() -> None:
    reader = Reader()
    assert reader.reads(1.0, report(0.0)) == [report(0.0)]
    assert reader.reads(20.0, report(0.0)) == [report(0.0)]
    assert reader.reads(21.0, report(19.5)) == [report(19.5)]


def test_a_worker_that_died_while_its_clock_was_ahead_is_gone_in_time() -> None:
    reader = Reader()
    assert reader.lives(0.0, report(-5.0))
    assert reader.lives(10.0, report(10.0 + HOUR))
    assert reader.lives(39.0, report(10.0 + HOUR))
    assert not reader.lives(41.0, report(10.0 + HOUR))
    assert not reader.lives(10.0 + HOUR, report(10.0 + HOUR))


def test_a_reader_that_begins_after_such_a_death_takes_it_for_alive_for_one_ttl() -> None:
    reader = Reader()
    assert reader.lives(0.0, report(HOUR))
    assert not reader.lives(31.0, report(HOUR))


def test_a_worker_whose_clock_is_behind_lives_from_its_next_report_on() -> None:
    reader = Reader()
    assert not reader.lives(0.0, report(-HOUR))
    assert reader.lives(10.0, report(10.0 - HOUR))
    assert not reader.lives(41.0, report(10.0 - HOUR))


@pytest.mark.parametrize(("off_s", "reported_s"), [(HOUR, 1.0), (-HOUR, 0.0)])
def test_what_a_wrong_clock_dated_is_told_by_the_reader_s_to_within_the_time_between_two_looks(
    off_s: float, reported_s: float
) -> None:
    reader = Reader()
    reader.reads(0.0, report(off_s))
    assert reader.reads(1.0, report(1.0 + off_s)) == [report(reported_s)]


def test_a_new_worker_s_report_is_no_older_than_the_last_look() -> None:
    reader = Reader()
    reader.reads(0.0)
    (reported,) = reader.reads(7.0, report(-HOUR))
    assert reported.seen_at == at(0.0)


def test_a_reader_s_own_clock_that_is_set_right_changes_no_age() -> None:
    reader = Reader()
    reader.reads(0.0, report(0.0))
    (reported,) = reader.ages.dated([report(0.0)], at(HOUR + 20.0), 20.0)
    assert reported == report(HOUR)
