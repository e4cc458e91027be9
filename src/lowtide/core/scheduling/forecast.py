"""What a pool gets done: learnt from commits, and laid out for the hours to come.

Pure. store/statements/throughput.py feeds a `Throughput` with what each commit committed and keeps
the `HourOfWeek`s that full hours leave behind, one for each hour of the week;
loops/scheduling/urgency.py, service/batches/progress.py and service/batches/forecasts.py ask an
`CapacityForecast` how much will be done by when. Everything is in the work units of
core/scheduling/fair_queue.py. Invariant: where nothing was learnt there is no outlook, never a
guess; only time in which work was there to do counts.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.scheduling.operating_hours import OperatingHours

HOUR_S: Final = 3600.0
CELLS: Final = 168
"""Hours of a week; the first begins on Monday at midnight, UTC."""

Quantile = Literal["p20", "p50"]
"""p20 is reached in four weeks of five."""


class HourOfWeek(msgspec.Struct, frozen=True):
    """Work units a second in one hour of the week, over the weeks."""

    p20: float
    p50: float
    weeks: int

    def learned(self, rate: float) -> "HourOfWeek":
        """The cell after one more week. A rate below p20 moves it four
        times as far as one above.
        """
        gap = rate - self.p20
        step = limits.CELL_EWMA * (gap if gap < 0 else gap / 4)
        p50 = self.p50 + limits.CELL_EWMA * (rate - self.p50)
        return HourOfWeek(min(self.p20 + step, p50), p50, self.weeks + 1)


class Hour(msgspec.Struct, frozen=True):
    """The present hour so far: work done, and seconds in which chunks waited."""

    at: datetime
    work: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Work units a second; None when the pool was not under load for long enough."""
        return self.work / self.seconds if self.seconds >= limits.CELL_SECONDS_MIN else None


class Done(msgspec.Struct, frozen=True):
    """What a commit committed for one model."""

    work: float = 0.0
    requests: int = 0
    output_tokens: int = 0


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """A pool's recent past, as sums in which the older counts less (`PACE_TAU_S`)."""

    at: datetime
    work: float = 0.0
    seconds: float = 0.0
    requests: float = 0.0
    output_tokens: float = 0.0
    hour: Hour

    @classmethod
    def begin(cls, now: datetime) -> "Throughput":
        return cls(at=now, hour=Hour(hour_of(now)))

    @property
    def rate(self) -> float | None:
        """Work units a second; None before enough was seen."""
        return self.work / self.seconds if self.seconds >= limits.PACE_SECONDS_MIN else None

    @property
    def output_per_request(self) -> float | None:
        if self.requests < limits.OUTPUT_SAMPLES_MIN:
            return None
        return self.output_tokens / self.requests

    def after(
        self, done: Done, now: datetime, *, backlogged: bool
    ) -> tuple["Throughput", tuple[int, float] | None]:
        """The pace after a commit, and `(cell, rate)` of the hour that this commit closed.

        `backlogged`: chunks still wait, so that the pool, and not its users, set the pace.
        """
        elapsed = max(0.0, (now - self.at).total_seconds())
        keep = math.exp(-elapsed / limits.PACE_TAU_S)
        hour, closed = self.hour, None
        if hour_of(now) != hour.at:
            closed = (cell_of(hour.at), hour.rate) if hour.rate is not None else None
            hour = Hour(hour_of(now))
        if backlogged:
            hour = Hour(hour.at, hour.work + done.work, hour.seconds + elapsed)
        pace = Throughput(
            at=max(now, self.at),
            work=self.work * keep + done.work,
            seconds=self.seconds * keep + elapsed,
            requests=self.requests * keep + done.requests,
            output_tokens=self.output_tokens * keep + done.output_tokens,
            hour=hour,
        )
        return pace, closed


class CapacityForecast:
    """Work that a pool will do, hour by hour from now on."""

    def __init__(self, now: datetime, rates: list[float]) -> None:
        """`rates`: work units a second in each hour of `FORECAST_HOURS`, the first cut by `now`."""
        self._now = now
        first_s = HOUR_S - (now - hour_of(now)).total_seconds()
        lengths = [first_s, *[HOUR_S] * (len(rates) - 1)]
        self._ends = list(accumulate(lengths, initial=0.0))
        self._sums = list(accumulate(map(float.__mul__, rates, lengths), initial=0.0))
        self.rate = rates[0]
        """The rate of the current hour."""

    def by(self, at: datetime) -> float:
        """Work units from now until then."""
        seconds = min(max(0.0, (at - self._now).total_seconds()), self._ends[-1])
        place = max(1, bisect_left(self._ends, seconds))
        share = (seconds - self._ends[place - 1]) / (self._ends[place] - self._ends[place - 1])
        return self._sums[place - 1] + share * (self._sums[place] - self._sums[place - 1])

    def seconds_for(self, work: float) -> float | None:
        """How long that takes if nothing else runs; None beyond the horizon."""
        if work <= 0:
            return 0.0
        if work > self._sums[-1]:
            return None
        place = max(1, bisect_left(self._sums, work))
        share = (work - self._sums[place - 1]) / (self._sums[place] - self._sums[place - 1])
        return self._ends[place - 1] + share * (self._ends[place] - self._ends[place - 1])


def capacity_forecast(
    now: datetime,
    pace: Throughput | None,
    cells: Mapping[int, HourOfWeek],
    quantile: Quantile = "p50",
    hours: OperatingHours | None = None,
) -> CapacityForecast | None:
    """What the pool will do; None while nothing is known of it.

    An hour of the week that was never under load takes the mean of the same hour of other days,
    else of all cells. How the recent pace differs from what this hour is like counts fully now and
    fades over `PACE_FADE_S`. Outside of `hours` nothing is done.
    """
    recent = pace.rate if pace is not None else None
    known = {cell: getattr(value, quantile) for cell, value in cells.items()}
    rates = _rates(now, pace, recent, known)
    if hours is not None:
        shares = _open_shares(now, hours)
        rates = [rate * shares[n % 24 or 24 * (n > 0)] for n, rate in enumerate(rates)]
    return CapacityForecast(now, rates) if any(rates) else None


def _rates(
    now: datetime, pace: Throughput | None, recent: float | None, known: Mapping[int, float]
) -> list[float]:
    """Work units a second, hour by hour."""
    if not known:
        return [recent or 0.0] * limits.FORECAST_HOURS
    usual = _filled(known)
    here = usual[cell_of(now)]
    ratio = recent / here if recent and here > 0 and _is_fresh(pace, now) else 1.0
    first = cell_of(now)
    rates = []
    for ahead in range(limits.FORECAST_HOURS):
        faded = 1.0 + (ratio - 1.0) * math.exp(-ahead * HOUR_S / limits.PACE_FADE_S)
        rates.append(usual[(first + ahead) % CELLS] * faded)
    return rates


def _open_shares(now: datetime, hours: OperatingHours) -> list[float]:
    """The open share of the rest of this hour, and of each of the 24 that follow,
    which stand for all days.
    """
    full = [hour_of(now) + timedelta(hours=n + 1) for n in range(25)]
    return [hours.share_open(now, full[0]), *map(hours.share_open, full, full[1:])]


def hour_of(at: datetime) -> datetime:
    """The full hour in UTC that `at` lies in."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def cell_of(at: datetime) -> int:
    """The hour of the week, from 0 to 167."""
    at = at.astimezone(UTC)
    return at.weekday() * 24 + at.hour


def _is_fresh(pace: Throughput | None, now: datetime) -> bool:
    return pace is not None and (now - pace.at).total_seconds() < limits.PACE_TAU_S


def _filled(known: Mapping[int, float]) -> list[float]:
    """A rate for each cell."""
    mean = sum(known.values()) / len(known)
    by_hour: dict[int, list[float]] = {}
    for cell, rate in known.items():
        by_hour.setdefault(cell % 24, []).append(rate)
    of_hour = {hour: sum(rates) / len(rates) for hour, rates in by_hour.items()}
    return [known.get(cell, of_hour.get(cell % 24, mean)) for cell in range(CELLS)]
