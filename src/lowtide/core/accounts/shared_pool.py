"""How a rate pool that several processes share is divided: what one takes of it, and what it owes.

The store asks in the transaction in which a process reports, so each amount is taken once; the
bucket in the process (shared_rates.py) lives on what it took. Pure: seconds that passed go in.
Invariant: what all processes took and did not give back, and what is left, is never more than a
minute's worth and what filled since.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from lowtide.core.accounts.rate_limit import MINUTE_S, Kind, PoolName
from lowtide.limits import CLOCKS_AGREE_S, LIVE_DEBT_MINUTES_MAX, LIVE_SHARE_UNTAKEN

KINDS: Final[tuple[Kind, ...]] = ("requests", "tokens")


class Need(msgspec.Struct, frozen=True):
    """What one process says of its bucket."""

    capacity: int
    """The limit: what the pool holds at most, and what fills it in a minute."""
    returned: float
    """What it took and did not use. Below zero: what it used beyond."""
    asked: float
    """What its calls asked for since the last report, whether they were let through or not."""
    largest: float
    """The largest of these calls, or of one that was refused and may come again."""
    level: float | None = None
    """What a process has that knows of no other one: that is what the pool has."""


class PoolReport(msgspec.Struct, frozen=True):
    """What one process says of one pool; None: without that limit."""

    name: PoolName
    requests: Need | None
    tokens: Need | None

    @property
    def needs(self) -> Mapping[Kind, Need]:
        pairs: tuple[tuple[Kind, Need | None], ...] = (
            ("requests", self.requests),
            ("tokens", self.tokens),
        )
        return {kind: need for kind, need in pairs if need is not None}


class Pool(msgspec.Struct, frozen=True):
    """What is left in a pool: taken by no process, and used by none. None: all, or no limit."""

    at: datetime
    requests: float | None
    tokens: float | None

    def left(self, kind: Kind) -> float | None:
        """That of the limit of this kind."""
        return self.requests if kind == "requests" else self.tokens


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What a process learned."""

    processes: int
    """That are alive, this one among them."""
    taken: Mapping[PoolName, Mapping[Kind, float]]
    """The amounts of each reported pool. Below zero: its debt, which the only process takes."""
    changed: Mapping[PoolName, Pool]
    """Pools that changed lately, by whomever; those that were reported are among them."""


def filled(level: float, capacity: int, passed_s: float) -> float:
    """What is in a pool after so many seconds."""
    return min(float(capacity), level + capacity * max(0.0, passed_s) / MINUTE_S)


def cut(left: float, need: Need, processes: int) -> float:
    """What a process takes of what is left. The only process takes all of it, or its debt.

    One of several takes what its calls asked for since its last report, and no more than half; but
    at least its part of the half that processes may use of a pool that they do not hold
    (`first_part`), and enough for one call.
    """
    if processes == 1:
        return left
    usual = max(need.asked, left * LIVE_SHARE_UNTAKEN / processes)
    return max(0.0, min(left, max(need.largest, min(left * (1 - LIVE_SHARE_UNTAKEN), usual))))


def first_part(left: float, processes: int) -> float:
    """What a process may use of a pool before it has taken any of it: one call at least."""
    if processes == 1:
        return left
    return max(0.0, left * LIVE_SHARE_UNTAKEN / processes, min(1.0, left))


def nothing_asked(report: PoolReport) -> PoolReport:
    """The report of a process that stops: it gives back all."""
    return PoolReport(report.name, _nothing_asked(report.requests), _nothing_asked(report.tokens))


def _nothing_asked(need: Need | None) -> Need | None:
    return None if need is None else msgspec.structs.replace(need, asked=0.0, largest=0.0)


def settle(
    pool: Pool | None, report: PoolReport, processes: int, now: datetime
) -> tuple[Pool, dict[Kind, float]]:
    """The pool after a process's report, and what that process has taken.

    `pool` None: it was not used lately, so it is full.
    """
    at, passed_s = now, 0.0
    if pool is not None:
        passed_s = (now - pool.at).total_seconds()
        # A clock that is a little ahead has filled the pool until then. One that was far off is
        # not waited for.
        if -CLOCKS_AGREE_S < passed_s < 0:
            at = pool.at
    is_in_use = any(need.asked or need.largest for need in report.needs.values())
    left: dict[Kind, float] = {}
    taken: dict[Kind, float] = {}
    for kind, need in report.needs.items():
        if processes == 1 and need.level is not None:
            level = need.level
        else:
            before = None if pool is None else pool.left(kind)
            level = need.capacity if before is None else filled(before, need.capacity, passed_s)
            level = max(level + need.returned, -float(need.capacity) * LIVE_DEBT_MINUTES_MAX)
            level = min(level, float(need.capacity))
        taken[kind] = cut(level, need, processes) if is_in_use else 0.0
        left[kind] = level - taken[kind]
    return Pool(at, left.get("requests"), left.get("tokens")), taken
