"""How many lines about one thing are written."""

from lowtide import limits
from lowtide.core.reporting.line_bound import LineBound


def test_a_few_lines_come_at_once_and_then_one_per_span() -> None:
    bound = LineBound(60.0, 3)
    admitted = [second for second in range(600) if bound.admit("a", float(second)) is not None]
    assert admitted[:3] == [0, 1, 2]
    assert len(admitted) == 3 + 9


def test_what_is_left_out_is_counted_for_the_next_line() -> None:
    bound = LineBound(60.0, 1)
    assert bound.admit("a", 0.0) == 0
    assert [bound.admit("a", float(second)) for second in range(1, 6)] == [None] * 5
    assert bound.admit("a", 61.0) == 5
    assert bound.admit("a", 200.0) == 0


def test_one_thing_takes_nothing_from_another() -> None:
    bound = LineBound(60.0, 1)
    assert bound.admit("a", 0.0) == 0
    assert bound.admit("b", 0.0) == 0
    assert bound.admit("a", 1.0) is None


def test_the_number_of_things_told_apart_is_bounded() -> None:
    bound = LineBound(60.0, 1)
    for number in range(3 * limits.LINE_BOUND_KEYS_MAX):
        bound.admit(str(number), number / 1000)
    assert len(bound._allowances) <= limits.LINE_BOUND_KEYS_MAX
