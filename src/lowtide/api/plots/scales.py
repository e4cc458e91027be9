"""Scales of a plot: round values on one axis, round instants on the other. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import ceil, floor, log10
from typing import Final

import msgspec

_STEPS_S: Final = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200,
    86400, 172800, 432000, 864000,
)  # fmt: skip
_LABELS_MAX: Final = 6  # of instants: more would touch on a narrow screen
_DAY_S: Final = 86_400


class Tick(msgspec.Struct, frozen=True):
    """A label at that share of the axis, from 0 to 1. `at`: the instant that it names, if one."""

    share: float
    label: str
    at: datetime | None = None


class TimeScale(msgspec.Struct, frozen=True):
    """The horizontal axis, which is not empty: `until` is after `since`."""

    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        return (self.until - self.since).total_seconds()

    def share(self, at: datetime) -> float:
        """The place of that instant, from 0 to 1; what lies outside is put on the edge."""
        return min(1.0, max(0.0, (at - self.since).total_seconds() / self.seconds))

    def ticks(self) -> list[Tick]:
        """Round instants in UTC, at most six, none so near an edge that its label is cut."""
        step_s = next((each for each in _STEPS_S if self.seconds / each <= _most(each)), None)
        step_s = step_s or _DAY_S * ceil(self.seconds / _DAY_S / _LABELS_MAX)
        first = ceil(self.since.timestamp() / step_s) * step_s
        last = floor(self.until.timestamp() / step_s) * step_s
        instants = [datetime.fromtimestamp(at, UTC) for at in range(first, last + 1, step_s)]
        words = _words(step_s, self.seconds)
        placed = [Tick(self.share(at), format(at, words), at) for at in instants]
        edge = 0.1 if step_s < 60 else 0.03
        return [each for each in placed if edge <= each.share <= 1 - edge]


def time_scale(since: datetime, until: datetime) -> TimeScale:
    """The axis between the two; at least a second, so that it can be divided by its length."""
    return TimeScale(since, max(until, since + timedelta(seconds=1)))


def value_ticks(largest: float) -> Sequence[float]:
    """Two to five round values from above 0 up to one that is not below `largest`."""
    if largest <= 0:
        return (1.0,)
    step = 10.0 ** floor(log10(largest))
    factor = next(each for each in (0.2, 0.5, 1, 2, 5) if largest <= each * step * 5)
    step *= factor
    return [step * number for number in range(1, max(1, ceil(largest / step - 1e-9)) + 1)]


def short_number(value: float) -> str:
    """A number with three digits that count: `0.05`, `12.5`, `1.2k`, `3M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _most(step_s: int) -> int:
    """How many labels fit: those with seconds are long."""
    return _LABELS_MAX if step_s >= 60 else _LABELS_MAX // 2


def _words(step_s: int, seconds: float) -> str:
    if step_s < 60:
        return "%H:%M:%S"
    if step_s >= _DAY_S:
        return "%b %-d"
    return "%H:%M" if seconds <= _DAY_S else "%a %H:%M"
