"""How many replicas a model needs so that its deadlines are kept, and when it has to be woken.

Pure; service/scale.py asks with what is known of the backlog, the replicas and their speed. A
replica more is wanted at the latest moment at which it still keeps a deadline, a cold start ahead;
one that runs goes on while it has work. Invariants: never zero while anything is in flight; what is
not known lowers nothing; a number falls only after it was too high for as long as a cold start
takes, since that is what a wrong fall costs.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.scheduling.operating_hours import OperatingHours

_STEP_S: Final = 300.0
"""Operating hours are looked at in such steps; they begin and end at full minutes, mostly at full
hours."""


class OpenTime:
    """The seconds in which a model takes batch work, from `now` on."""

    def __init__(self, now: datetime, hours: OperatingHours | None = None) -> None:
        """`hours` None: it always does."""
        self._now = now
        self._sums: list[float] | None = None
        if hours is not None:
            steps = int(limits.COMPLETION_WINDOW_S_MAX / _STEP_S)
            middles = (now + timedelta(seconds=(n + 0.5) * _STEP_S) for n in range(steps))
            opened = (_STEP_S * hours.is_open(at) for at in middles)
            self._sums = list(accumulate(opened, initial=0.0))

    def until(self, at: datetime) -> float:
        """The seconds of operation from now until then; 0 where it is past."""
        seconds = max(0.0, (at - self._now).total_seconds())
        if self._sums is None:
            return seconds
        step = min(seconds / _STEP_S, len(self._sums) - 1)
        whole = min(int(step), len(self._sums) - 2)
        return self._sums[whole] + (step - whole) * (self._sums[whole + 1] - self._sums[whole])

    def latest(self, opened_s: float) -> datetime:
        """The last instant before which there are so many open seconds, or now."""
        if self._sums is None or opened_s <= 0:
            return self._now + timedelta(seconds=max(0.0, opened_s))
        step = bisect_left(self._sums, opened_s)
        return self._now + timedelta(seconds=step * _STEP_S)


class ModelLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model. `due`: deadlines, the earliest first, each with the work units due
    by it and not before. `in_flight`: calls of batches at its replicas, `live`: calls of others.
    `present`: replicas that serve it. `rate`: work units a second of one replica, None while it is
    not known. `is_known` False: no worker reports, so `present` and the calls mean nothing.
    """

    due: Sequence[tuple[datetime, float]] = ()
    in_flight: int = 0
    live: int = 0
    present: int = 0
    rate: float | None = None
    cold_start_s: float
    replicas_max: int
    is_known: bool = True

    @property
    def work(self) -> float:
        """All work units that are due some time."""
        return sum(work for _, work in self.due)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas that a model needs. `deadline_at`: the one that decides; `wake_at`: when another
    replica is to be started, None where none is. `trusted` False: something was not known, and the
    number is held up for that; `learns`: a replica has to run for it to be known.
    """

    replicas: int
    deadline_at: datetime | None = None
    wake_at: datetime | None = None
    trusted: bool = True
    learns: bool = False
    reason: str = "no work"


class Held(msgspec.Struct, frozen=True):
    """A number that was reported, and until when a lower one waits."""

    replicas: int
    until: datetime


def wanted_replicas(load: ModelLoad, now: datetime, opened: OpenTime) -> Wanted:
    """What the present knowledge asks for, before it is damped."""
    if not load.is_known:
        return Wanted(
            replicas=load.present, trusted=False, reason="no worker reports what there is"
        )
    least = _least(load)
    if load.work <= 0:
        reason = "calls are in flight" if least else "no work"
        return Wanted(replicas=_bounded(least, load), reason=reason)
    if not load.rate:
        return Wanted(
            replicas=_bounded(max(1, load.present), load),
            deadline_at=load.due[0][0],
            trusted=False,
            learns=True,
            reason="how fast a replica is has yet to be learned: one that runs will tell",
        )
    return _by_deadline(load, load.rate, now, opened, least)


def damped(wanted: Wanted, held: Held | None, present: int, now: datetime, hold_s: float) -> Wanted:
    """The number to be reported after `held` was: a higher one at once, a lower one after `hold_s`.
    After a start, when nothing was reported yet, what is present counts as reported.
    """
    before = held if held is not None else Held(present, now + timedelta(seconds=hold_s))
    if wanted.replicas >= before.replicas:
        return wanted
    if not wanted.trusted:
        return msgspec.structs.replace(wanted, replicas=before.replicas)
    if now < before.until:
        reason = f"{wanted.reason}; held until {before.until:%H:%M:%S} UTC, for a start is slow"
        return msgspec.structs.replace(wanted, replicas=before.replicas, reason=reason)
    return wanted


def held_after(
    damped_to: Wanted, raw: Wanted, held: Held | None, now: datetime, hold_s: float
) -> Held:
    """What is held once `damped_to` was reported for `raw`."""
    until = now + timedelta(seconds=hold_s)
    is_lower = damped_to.trusted and raw.replicas < damped_to.replicas
    if is_lower and held is not None and held.replicas == damped_to.replicas:
        until = held.until  # the time of the lower number goes on
    return Held(damped_to.replicas, until)


def _by_deadline(
    load: ModelLoad, rate: float, now: datetime, opened: OpenTime, least: int
) -> Wanted:
    """`rate`: work units a second of one replica. Each deadline is taken with all that is due
    before it.
    """
    cold_s = opened.until(now + timedelta(seconds=load.cold_start_s))
    before, extra, needed = 0.0, 0, 0.0
    decides_at, wake_at = load.due[0][0], None
    for at, work in load.due:
        before += limits.SCALE_SAFETY * work
        open_s = opened.until(at)
        needed = max(needed, before / (rate * max(open_s, limits.SCALE_ROOM_S_MIN)))
        short = before - rate * load.present * open_s
        if short <= 0:
            continue
        room_s = open_s - cold_s
        more = short / (rate * max(room_s, limits.SCALE_ROOM_S_MIN))
        is_last_chance = room_s <= limits.SCALE_ROOM_S_MIN
        whole = math.ceil(more) if is_last_chance else math.floor(more)
        if whole > extra:
            extra, decides_at = whole, at
        busy_s = max(short / rate, limits.SCALE_ROOM_S_MIN)
        start_at = opened.latest(open_s - busy_s) - timedelta(seconds=load.cold_start_s)
        wake_at = min(wake_at or start_at, start_at)
    keep = min(load.present, max(1, math.ceil(needed)))
    count = _bounded(max(least, keep, load.present + extra if extra else 0), load)
    if extra:
        return Wanted(
            replicas=count, deadline_at=decides_at, wake_at=now, reason=_due(decides_at, count)
        )
    if wake_at is not None:
        words = f"{'scaled to zero, ' if not count else ''}wakes at {wake_at:%Y-%m-%d %H:%M} UTC"
        return Wanted(replicas=count, deadline_at=decides_at, wake_at=wake_at, reason=words)
    return Wanted(replicas=count, deadline_at=decides_at, reason=_due(decides_at, count))


def _least(load: ModelLoad) -> int:
    """The number that calls in flight ask for: all replicas while calls of others run there, as
    Lowtide does not know what these need; one while a batch's do.
    """
    if load.live > 0:
        return max(1, load.present)
    return 1 if load.in_flight > 0 else 0


def _bounded(count: int, load: ModelLoad) -> int:
    return min(count, load.replicas_max)


def _due(at: datetime, count: int) -> str:
    return f"work is due by {at:%Y-%m-%d %H:%M} UTC: {count} replica{'' if count == 1 else 's'}"
