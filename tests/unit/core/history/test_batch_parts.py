"""A part of a batch is named by the worst that is in it."""

import pytest

from lowtide.core.history.batch_parts import BatchPart


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
