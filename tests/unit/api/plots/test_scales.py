"""Round values and round instants on the axes of a plot."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from lowtide.api.plots.scales import short_number, time_scale, value_ticks

NOON = datetime(2026, 3, 1, 12, 3, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("largest", "ticks"),
    [
        (0, [1]),
        (0.7, [0.2, 0.4, 0.6, 0.8]),
        (1, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.2, [1, 2, 3, 4]),
        (10, [2, 4, 6, 8, 10]),
        (87_000, [20_000, 40_000, 60_000, 80_000, 100_000]),
    ],
)
def test_values_are_round_and_reach_the_largest(largest: float, ticks: list[float]) -> None:
    assert list(value_ticks(largest)) == pytest.approx(ticks)


@pytest.mark.parametrize("seconds", [7, 45, 300, 5_000, 86_400, 200_000, 9_000_000, 200_000_000])
def test_instants_are_round_few_and_within_the_axis(seconds: float) -> None:
    scale = time_scale(NOON, NOON + timedelta(seconds=seconds))
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 7
    assert all(0 < tick.share < 1 and tick.at is not None for tick in ticks)
    steps = {after.at - tick.at for tick, after in pairwise(ticks)}  # type: ignore[operator]
    assert len(steps) <= 1


def test_labels_say_as_much_as_tells_them_apart() -> None:
    def label(seconds: float) -> str:
        return time_scale(NOON, NOON + timedelta(seconds=seconds)).ticks()[0].label

    assert label(30) == "12:03:30"
    assert label(3_600) == "12:10"
    assert label(100_000) == "Sun 18:00"
    assert label(1_000_000) == "Mar 2"


def test_numbers_have_three_digits_that_count() -> None:
    values = (0.05, 12.5, 999, 1_234, 3_000_000, 2e9)
    assert [short_number(each) for each in values] == ["0.05", "12.5", "999", "1.23k", "3M", "2G"]
