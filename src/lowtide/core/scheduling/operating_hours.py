"""When batch work may start: an operator's hours of the day, in a zone of the operator's choice.

Pure. The settings hold the words, loops/dispatch/leasing.py asks before it claims, the service
gives the reason and counts closed hours out of what a pool will do. Invariant: hours are wall-clock
times, so they stay where they are when clocks change; hours that end before they begin last over
midnight.
"""

import re
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_SHARE_STEP: Final = timedelta(minutes=5)


class OperatingHours(msgspec.Struct, frozen=True):
    """The hours from `begin` until `end`, every day, in `zone`."""

    begin: time
    end: time
    zone: ZoneInfo

    def is_open(self, now: datetime) -> bool:
        at = now.astimezone(self.zone).time()
        if self.begin < self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end

    def closed_since(self, now: datetime) -> datetime:
        """When they ended last, in UTC."""
        day = now.astimezone(self.zone).date()
        ends = (datetime.combine(day - timedelta(days=ago), self.end, self.zone) for ago in (0, 1))
        return next(end for each in ends if (end := each.astimezone(UTC)) <= now)

    def share_open(self, since: datetime, until: datetime) -> float:
        """The share of that span in which work may start, in [0, 1], to five minutes."""
        steps = max(1, round((until - since) / _SHARE_STEP))
        middle = since + _SHARE_STEP / 2
        return sum(self.is_open(middle + n * _SHARE_STEP) for n in range(steps)) / steps

    @property
    def opens(self) -> str:
        """When they open, for a batch's reason: `window opens 22:00 (Europe/Berlin)`."""
        zone = "" if self.zone.key == "UTC" else f" ({self.zone.key})"
        return f"window opens {self.begin:%H:%M}{zone}"


Span = tuple[time, time]
"""Begin and end."""


def span_of(words: str) -> Span:
    """`22:00-06:00`. Raises ValueError for words that say no hours."""
    match = _HOURS.fullmatch(words.replace(" ", ""))
    if match is None or match.group(1, 2) == match.group(3, 4):
        raise ValueError(f"{words!r} is no span of hours: write for example '22:00-06:00'")
    return time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
