"""What a worker sees of its batches: movement, failures, rejected lines."""

from datetime import UTC, datetime, timedelta

from lowtide import limits
from lowtide.core.reporting.batch_watch import OTHER, BatchWatch
from lowtide.core.reporting.worker_report import BatchReport

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def report_of(watch: BatchWatch, batch_id: str, now_s: float) -> BatchReport:
    return next(each for each in watch.reports(NOW, now_s) if each.id == batch_id)


def test_a_batch_has_moved_when_it_was_taken_and_with_each_commit() -> None:
    watch = BatchWatch()
    watch.see_leased({"b"}, 100.0)
    assert report_of(watch, "b", 110.0).moved_at == NOW - timedelta(seconds=10)
    watch.settled("b", 107.0)
    watch.see_leased({"b"}, 109.0)
    assert report_of(watch, "b", 110.0).moved_at == NOW - timedelta(seconds=3)


def test_a_batch_that_the_worker_has_no_more_of_is_forgotten_after_a_while() -> None:
    watch = BatchWatch()
    watch.see_leased({"b"}, 0.0)
    watch.see_leased(set(), limits.BATCH_STILL_S)
    assert watch.reports(NOW, 0.0), "between two chunks it is at work"
    watch.see_leased(set(), limits.BATCH_STILL_S + 1)
    assert watch.reports(NOW, 0.0) == ()


def test_failures_are_counted_as_long_as_they_go_on() -> None:
    watch = BatchWatch()
    for second in range(5):
        watch.failed("b", f"engine_error: boom {second}", float(second))
    known = report_of(watch, "b", 10.0)
    assert (known.failures, known.last_failure) == (5, "engine_error: boom 4")
    late_s = 5 + limits.BATCH_FAILURES_SPAN_S
    assert report_of(watch, "b", late_s).failures == 0
    watch.failed("b", "timeout: slow", late_s)
    assert report_of(watch, "b", late_s).failures == 1


def test_rejected_lines_are_told_at_once_and_then_counted_once_a_minute() -> None:
    watch = BatchWatch()
    reported = []
    for second in range(121):
        for _ in range(100):
            watch.rejected("b", "invalid_request", f"no {second}", float(second))
        reported += watch.take_rejected(float(second))
    assert [line.lines for line in reported] == [100, 6000, 6000]
    assert reported[-1].lines_total == 12_100
    assert reported[-1].last == "no 120"


def test_no_rejected_line_is_forgotten_with_its_batch() -> None:
    watch = BatchWatch()
    watch.see_leased({"b"}, 0.0)
    watch.rejected("b", "bad", "no", 0.0)
    watch.take_rejected(0.0)
    watch.rejected("b", "bad", "no", 1.0)
    watch.see_leased(set(), 50.0)
    assert [line.lines for line in watch.take_rejected(60.0)] == [1]
    watch.see_leased(set(), 61.0)
    assert watch.reports(NOW, 61.0) == ()


def test_batches_and_codes_are_bounded() -> None:
    watch = BatchWatch()
    names = [f"b{number}" for number in range(limits.REPORT_BATCHES_MAX + 5)]
    watch.see_leased(names, 0.0)
    assert watch.is_full
    for name in names:
        watch.failed(name, "x", 0.0)
    assert len(watch.reports(NOW, 0.0)) == limits.REPORT_BATCHES_MAX
    for number in range(3 * limits.REJECTED_CODES_MAX):
        watch.rejected("b0", f"code{number}", "x", 0.0)
    lines = watch.take_rejected(0.0)
    assert len(lines) == limits.REJECTED_CODES_MAX + 1
    assert next(line.lines for line in lines if line.code == OTHER) == 2 * limits.REJECTED_CODES_MAX
    watch.see_leased(names[:3], 0.0)
    assert not watch.is_full
