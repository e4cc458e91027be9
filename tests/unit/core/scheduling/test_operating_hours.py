"""Hours of the day in which batch work may start."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from lowtide.core.scheduling.operating_hours import OperatingHours, span_of

DAY = datetime(2026, 11, 21, tzinfo=UTC)


def at(hours: float) -> datetime:
    return DAY + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("words", "hour", "is_open"),
    [
        ("08:00-18:00", 7.99, False),
        ("08:00-18:00", 8, True),
        ("08:00-18:00", 17.99, True),
        ("08:00-18:00", 18, False),
        ("22:00-06:00", 21.99, False),
        ("22:00-06:00", 22, True),
        ("22:00-06:00", 3, True),
        ("22:00-06:00", 6, False),
        ("22:00 - 06:00", 6, False),
    ],
)
def test_hours_begin_inclusively_and_may_last_over_midnight(
    words: str, hour: float, is_open: bool
) -> None:
    assert OperatingHours(*span_of(words), ZoneInfo("UTC")).is_open(at(hour)) == is_open


def test_hours_are_those_of_the_zone_winter_and_summer() -> None:
    hours = OperatingHours(*span_of("22:00-06:00"), ZoneInfo("Europe/Berlin"))
    assert hours.is_open(datetime(2026, 1, 10, 21, tzinfo=UTC))
    assert not hours.is_open(datetime(2026, 1, 10, 20, 59, tzinfo=UTC))
    assert hours.is_open(datetime(2026, 7, 10, 20, tzinfo=UTC))
    assert hours.opens == "window opens 22:00 (Europe/Berlin)"
    assert OperatingHours(*span_of("22:00-06:00"), ZoneInfo("UTC")).opens == "window opens 22:00"


@pytest.mark.parametrize(
    ("words", "now_h", "since_h"),
    [
        ("08:00-18:00", 20, 18),
        ("08:00-18:00", 18, 18),
        ("08:00-18:00", 7, -6),
        ("22:00-06:00", 21, 6),
        ("22:00-06:00", 6, 6),
    ],
)
def test_they_are_closed_since_they_ended_last(words: str, now_h: float, since_h: float) -> None:
    hours = OperatingHours(*span_of(words), ZoneInfo("UTC"))
    assert hours.closed_since(at(now_h)) == at(since_h)


def test_the_end_of_hours_is_that_of_the_zone_when_clocks_change() -> None:
    hours = OperatingHours(*span_of("22:00-06:00"), ZoneInfo("Europe/Berlin"))
    for noon, utc_hour in ((datetime(2026, 10, 24, 10, tzinfo=UTC), 4), (DAY, 5)):
        now = noon.replace(hour=12)
        assert hours.closed_since(now) == now.replace(hour=utc_hour)


@pytest.mark.parametrize("words", ["", "22-6", "24:00-06:00", "22:00-22:00", "22:60-06:00"])
def test_words_that_say_no_hours_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match="22:00-06:00"):
        OperatingHours(*span_of(words), ZoneInfo("UTC"))


def test_the_share_of_an_hour_that_is_open() -> None:
    hours = OperatingHours(*span_of("08:30-18:00"), ZoneInfo("UTC"))
    assert hours.share_open(at(8), at(9)) == 0.5
    assert hours.share_open(at(9), at(10)) == 1.0
    assert hours.share_open(at(7), at(8)) == 0.0
