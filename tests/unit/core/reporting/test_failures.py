"""Which failures of loops are told, and which are only counted."""

from itertools import pairwise

import pytest

from lowtide import limits
from lowtide.core.reporting.failures import Failures

LOOPS = [f"loop {i}" for i in range(12)]


def lines_of(failures: Failures, until_s: int, *, every_s: int = 5) -> list[float]:
    """When lines came while all loops failed that often."""
    return [
        float(now_s)
        for now_s in range(0, until_s, every_s)
        for loop in LOOPS
        if failures.failed(loop, "StoreUnavailable", float(now_s)) is not None
    ]


def test_a_process_whose_database_is_away_says_so_at_once_and_then_less_than_once_a_minute() -> (
    None
):
    lines = lines_of(Failures(), 6 * 3600)
    assert lines[0] == 0.0
    gaps = [after - before for before, after in pairwise(lines)]
    assert gaps[:3] == [120.0, 240.0, 480.0]
    assert min(gaps) > 60.0
    assert max(gaps) == limits.FAILURE_LINE_S_MAX


def test_what_was_not_told_is_counted_in_the_next_line() -> None:
    failures = Failures()
    first = failures.failed("commit", "StoreUnavailable", 10.0)
    assert first is not None
    assert (first.loops, first.failures, first.is_first) == (("commit",), 1, True)
    assert failures.failed("validate", "StoreUnavailable", 11.0) is None
    assert failures.failed("commit", "StoreUnavailable", 12.0) is None
    later = failures.failed("commit", "StoreUnavailable", 130.0)
    assert later is not None
    assert (later.loops, later.failures, later.for_s) == (("commit", "validate"), 3, 120.0)
    assert not later.is_first


def test_an_outage_is_over_when_the_last_of_its_loops_works_again() -> None:
    failures = Failures()
    failures.failed("commit", "StoreUnavailable", 0.0)
    failures.failed("validate", "StoreUnavailable", 1.0)
    assert failures.worked("commit", 5.0) is None
    over = failures.worked("validate", 7.0)
    assert over is not None
    assert (over.loops, over.failures, over.for_s) == (("commit", "validate"), 2, 7.0)
    assert failures.worked("validate", 8.0) is None


def test_a_loop_that_works_is_no_news() -> None:
    assert Failures().worked("commit", 1.0) is None


def test_two_kinds_are_told_apart() -> None:
    failures = Failures()
    assert failures.failed("commit", "StoreUnavailable", 0.0) is not None
    assert failures.failed("commit", "BlobsFull", 1.0) is not None
    over = failures.worked("commit", 2.0)
    assert over is not None
    assert over.kind == "BlobsFull"


@pytest.mark.parametrize("every_s", [1, 7])
def test_an_outage_that_comes_and_goes_is_no_flood(every_s: int) -> None:
    failures = Failures()
    lines = 0
    for now_s in range(0, 3600, every_s):
        lines += failures.failed("commit", "StoreUnavailable", float(now_s)) is not None
        lines += failures.worked("commit", now_s + 0.5) is not None
    assert 2 * 2 <= lines <= 2 * (3600 / limits.FAILURE_LINE_S + 1)


def test_an_outage_that_comes_back_much_later_is_logged_at_once() -> None:
    failures = Failures()
    failures.failed("commit", "StoreUnavailable", 0.0)
    failures.worked("commit", 1.0)
    again = failures.failed("commit", "StoreUnavailable", 500.0)
    assert again is not None
    assert again.is_first
    assert again.failures == 1
