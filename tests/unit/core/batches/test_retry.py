"""Which lines a retry covers: those without success anywhere in the tree, of the kind asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.batches.line_sets import FailedLineCollector, FailedLines
from lowtide.core.batches.retry import MemberOutcome, RetryOnly, chosen, without_success


def failed(codes: dict[int, str]) -> FailedLines:
    collector = FailedLineCollector()
    for line, code in codes.items():
        collector.add(line, code)
    return collector.collected()


def outcome(codes: dict[int, str], *succeeded: int) -> MemberOutcome:
    return MemberOutcome(failed(codes), np.array(sorted(succeeded), np.uint32))


def codes_of(lines: FailedLines) -> dict[int, str]:
    return {
        line: lines.names[code]
        for line, code in zip(lines.lines.tolist(), lines.codes.tolist(), strict=True)
    }


FIRST = failed({2: "400", 3: "timeout", 5: "batch_expired", 8: "batch_cancelled"})


@pytest.mark.parametrize(
    ("only", "codes", "lines"),
    [
        ("all_unsuccessful", (), [2, 3, 5, 8]),
        ("failed", (), [2, 3]),
        ("expired", (), [5]),
        ("cancelled", (), [8]),
        ("failed", ("timeout",), [3]),
        ("all_unsuccessful", ("timeout", "batch_cancelled"), [3, 8]),
        ("expired", ("timeout",), []),
    ],
)
def test_a_retry_covers_what_it_asks_for(
    only: RetryOnly, codes: tuple[str, ...], lines: list[int]
) -> None:
    assert chosen(FIRST, only, codes).lines.tolist() == lines


def test_of_nothing_nothing_is_chosen() -> None:
    assert chosen(failed({}), "all_unsuccessful", ()).lines.tolist() == []


def test_a_line_that_succeeded_in_a_retry_is_never_covered_again() -> None:
    left = without_success(FIRST, [outcome({3: "500"}, 2), outcome({}, 8)])
    assert codes_of(left) == {3: "500", 5: "batch_expired"}


@given(st.data())
def test_over_any_tree_each_line_succeeds_once_or_is_left(data: st.DataObject) -> None:
    lines = range(1, data.draw(st.integers(1, 30)) + 1)
    first = {line: "x" for line in lines if data.draw(st.booleans())}
    succeeded = [line for line in lines if line not in first]
    retries: list[MemberOutcome] = []
    for _ in range(data.draw(st.integers(0, 4))):
        left = without_success(failed(first), retries)
        covered = [line for line in left.lines.tolist() if data.draw(st.booleans())]
        good = [line for line in covered if data.draw(st.booleans())]
        succeeded += good
        retries.append(outcome({line: "y" for line in covered if line not in good}, *good))
    left = without_success(failed(first), retries)
    assert sorted(succeeded + left.lines.tolist()) == list(lines)
