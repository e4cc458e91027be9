"""A part of a batch is named by the worst that is in it."""

import pytest

from lowtide.core.history.batch_parts import BatchPart, edges, in_input_order


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "done"),
        ({"failed": 1, "leased": 1}, "failed"),
        ({"leased": 1, "waiting": 3}, "running"),
        ({"paused": 1, "waiting": 1}, "paused"),
        ({"waiting": 1}, "waiting"),
        ({"dropped": 1}, "not_run"),
    ],
)
def test_the_worst_names_the_part(fields: dict[str, int], state: str) -> None:
    usual = {"first": 0, "count": 4, "settled": 4, "failed": 0}
    assert BatchPart(**{**usual, **fields}).state == state


def test_lines_in_their_order_are_counted_between_even_places() -> None:
    assert edges(7, 3) == [0, 2, 4, 7]
    assert edges(2, 3) == [0, 1, 2]
    assert edges(0, 3) == []
    parts = in_input_order([0, 2, 4, 7], done=[0, 2, 2, 4], failed=[0, 0, 0, 1], ran=True)
    assert [(each.first, each.count, each.state, each.place) for each in parts] == [
        (0, 2, "done", 0),
        (4, 3, "failed", 0),
    ], "the third and the fourth line are none of the batch's"


def test_lines_that_no_engine_saw_are_not_run() -> None:
    (done, left) = in_input_order([0, 2, 4], done=[0, 2, 2], failed=[0, 0, 2], ran=False)
    assert (done.state, left.state, left.failed, left.settled) == ("done", "not_run", 0, 0)
