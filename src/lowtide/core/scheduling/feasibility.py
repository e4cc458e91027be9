"""When the batches of a pool will be done, and which completion windows can be kept.

Pure. The service asks with the pool's backlog and its outlook; loops/scheduling/urgency.py takes
the backlog as the scheduler's entries. `work_until_done` plays the queue forward as a fluid:
organizations share the pool by weight, each works its own batches off in their order.
`assess_window` asks the other question, whether a deadline can be kept at all, which is earliest
deadline first. Invariants: what was learnt in a batch itself counts more with each of its answers;
no promise without an outlook.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.scheduling.fair_queue import Entry, work_of
from lowtide.core.scheduling.forecast import CapacityForecast
from lowtide.core.usage import NO_USAGE, Usage

HOUR_S: Final = 3600

Kept = Literal["feasible", "at_risk", "infeasible", "unknown"]
"""feasible: in four weeks of five. at_risk: in a usual week, or at the cost of another batch."""


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What one batch in progress has of one model: planned, and settled so far."""

    batch_id: str
    model: str
    organization_id: str
    weight: float = 1.0
    priority: int = 0
    deadline_at: datetime
    created_at: datetime
    paused: bool = False
    requests: int
    settled: int = 0
    planned_tokens: int = 0
    settled_tokens: int = 0
    planned_cost: float
    usage: Usage = NO_USAGE

    @property
    def planned(self) -> float:
        """Work units of the whole, as estimated before it ran."""
        return self.planned_cost or float(self.requests)

    @property
    def share_left(self) -> float:
        """The unfinished share of the planned work, by estimated tokens."""
        if self.settled >= self.requests:
            return 0.0
        if not self.planned_tokens:
            return 1.0 - self.settled / self.requests
        return max(0.0, 1.0 - self.settled_tokens / self.planned_tokens)

    @property
    def cost_left(self) -> float:
        """Work units still to do. How the estimate erred so far is expected of the rest, too, and
        believed more with each answer."""
        estimated = self.planned * (1.0 - self.share_left)
        actual = work_of(self.usage) or estimated
        belief = limits.OUTPUT_SAMPLES_MIN * self.planned / self.requests
        return self.planned * self.share_left * (actual + belief) / (estimated + belief)

    def entry(self) -> Entry:
        """The backlog as an entry for the scheduler's decisions."""
        return Entry(
            batch_id=self.batch_id,
            organization_id=self.organization_id,
            priority=self.priority,
            deadline_at=self.deadline_at,
            created_at=self.created_at,
            cost=self.cost_left,
        )


def work_until_done(backlog: Iterable[Backlog]) -> dict[str, float]:
    """Work units that one pool does until each batch is done, if nothing else comes, whatever its
    pace: a forecast turns them into seconds (`CapacityForecast.seconds_for`).

    With T organizations and B batches O(B log B): in units of virtual time, in which every
    organization gets its weight, each batch's end is known at once; then virtual time is turned
    into work.
    """
    entries = ((part.entry(), part.weight) for part in backlog if not part.paused)
    queues: dict[str, list[tuple[Entry, float]]] = {}
    for each in sorted(entries, key=lambda each: each[0].order):
        queues.setdefault(each[0].organization_id, []).append(each)
    ends: list[tuple[float, str, bool, float]] = []
    weights = 0.0
    for queue in queues.values():
        virtual, weight = 0.0, queue[0][1]
        weights += weight
        for place, (entry, _) in enumerate(queue, 1):
            virtual += entry.cost / weight
            ends.append((virtual, entry.batch_id, place == len(queue), weight))
    until: dict[str, float] = {}
    work = virtual_now = 0.0
    for virtual, batch_id, last, weight in sorted(ends):
        work += (virtual - virtual_now) * weights
        virtual_now = virtual
        until[batch_id] = work
        weights -= weight if last else 0.0
    return until


class Feasibility(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a completion window can be kept; `earliest_window_s`: the shortest that could be."""

    kept: Kept = "unknown"
    reason: str | None = None
    earliest_window_s: int | None = None


UNKNOWN: Final = Feasibility()


class Due:
    """Deadlines of a pool and the work units due by them."""

    def __init__(self, backlog: Iterable[Backlog] = ()) -> None:
        due = sorted((part.deadline_at, part.cost_left) for part in backlog if not part.paused)
        self.deadlines = [at for at, _ in due]
        self.sums = list(accumulate((work for _, work in due), initial=0.0))

    def by(self, at: datetime) -> float:
        return self.sums[bisect_right(self.deadlines, at)]


def assess_window(
    cost: float,
    deadline_at: datetime,
    now: datetime,
    due: Due,
    usual: CapacityForecast | None,
    safe: CapacityForecast | None,
    *,
    counted: bool = False,
) -> Feasibility:
    """Can work of that `cost` be done by `deadline_at`, with what is due before it?

    `usual` and `safe` are the outlooks at p50 and p20. `counted`: the work is in `due` already,
    as a batch that runs; a new one may also be in the way of deadlines after its own.
    """
    if usual is None or safe is None:
        return UNKNOWN
    before = due.by(deadline_at) - (cost if counted else 0.0)
    if before + cost > usual.by(deadline_at):
        kept: Kept = "infeasible"
        reason = _why(cost, before, deadline_at, now, usual)
    elif before + cost > safe.by(deadline_at):
        kept = "at_risk"
        reason = "The window can be kept in a usual week, but not with less capacity than that."
    elif not counted and _displaces(cost, deadline_at, due, safe):
        kept = "at_risk"
        reason = "The capacity before the window ends is promised to other batches."
    else:
        return Feasibility(kept="feasible")
    return Feasibility(
        kept=kept,
        reason=reason,
        earliest_window_s=None if counted else _earliest_window_s(cost, now, due, safe),
    )


def combine(verdicts: Iterable[Feasibility]) -> Feasibility:
    """The verdict on a batch from those on its models: it is done when the last of them is."""
    ranked: tuple[Kept, ...] = ("feasible", "unknown", "at_risk", "infeasible")
    known = list(verdicts)
    if not known:
        return UNKNOWN
    least = max(known, key=lambda verdict: ranked.index(verdict.kept))
    windows = [verdict.earliest_window_s for verdict in known if verdict.earliest_window_s]
    hopeless = any(v.kept == "infeasible" and v.earliest_window_s is None for v in known)
    window_s = None if hopeless else max(windows, default=None)
    return msgspec.structs.replace(least, earliest_window_s=window_s)


def _displaces(cost: float, deadline_at: datetime, due: Due, safe: CapacityForecast) -> bool:
    """Whether a deadline after this one could be kept without the new work, and not with it."""
    later = bisect_right(due.deadlines, deadline_at)
    return any(
        work <= safe.by(at) < work + cost
        for at, work in zip(due.deadlines[later:], due.sums[later + 1 :], strict=True)
    )


def _earliest_window_s(cost: float, now: datetime, due: Due, safe: CapacityForecast) -> int | None:
    """The shortest window in whole hours that is feasible; None: not even the longest."""
    for hours in range(1, limits.COMPLETION_WINDOW_S_MAX // HOUR_S + 1):
        deadline_at = now + timedelta(hours=hours)
        fits = due.by(deadline_at) + cost <= safe.by(deadline_at)
        if fits and not _displaces(cost, deadline_at, due, safe):
            return hours * HOUR_S
    return None


def _why(
    cost: float, before: float, deadline_at: datetime, now: datetime, usual: CapacityForecast
) -> str:
    alone_s, all_s = usual.seconds_for(cost), usual.seconds_for(cost + before)
    window_s = max(0.0, (deadline_at - now).total_seconds())
    alone = "more than four weeks" if alone_s is None else duration(alone_s)
    if alone_s is None or alone_s > window_s or all_s is None:
        return f"The batch alone needs about {alone}, and its window ends in {duration(window_s)}."
    return (
        f"With what is due before it, the batch needs about {duration(all_s)}, and its window ends"
        f" in {duration(window_s)}."
    )


def sentence(verdict: Feasibility) -> str:
    """The reason, and the way out."""
    if verdict.earliest_window_s is None:
        return verdict.reason or ""
    hours = f"{verdict.earliest_window_s // HOUR_S}h"
    return f"{verdict.reason} The shortest completion window that could be kept: {hours}."


def duration(seconds: float) -> str:
    """The duration as people read it: `45 min`, `3 h`, `2 d 4 h`."""
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def pools(backlog: Iterable[Backlog]) -> Mapping[str, list[Backlog]]:
    """The backlog by model."""
    by_model: dict[str, list[Backlog]] = {}
    for part in backlog:
        by_model.setdefault(part.model, []).append(part)
    return by_model
