"""Deadlines and fairness of the scheduler, against a clairvoyant fluid schedule.

    python -m bench.bench_deadlines [--seeds N]

Deadlines: seeded weeks of one pool. Batches with windows of 1 hour to 7 days arrive from tenants of
different weights; the pool's true capacity follows a day of live traffic, with noise that lasts for
hours. The scheduler knows only a forecast that is off by up to a fifth, and estimated costs. The
yardstick knows the true capacity and costs and serves the earliest deadline as a fluid, dropping
what expired: no schedule meets every deadline that it misses and all that it meets. Counted: of the
deadlines that it meets, those that we meet.

Fairness: all tenants have more work than the pool can do, requests differ tenfold in size and the
estimates are off by half, tenant by tenant. Jain's index over what each was given by weight, at the
end and in the worst hour. The last line of stdout is the result as JSON.
"""

import argparse
import heapq
import json
import math
import random
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from lowtide.core.scheduling.fair_queue import Entry, Scheduler

START: Final = datetime(2026, 3, 2, tzinfo=UTC)
HORIZON_S: Final = 7 * 24 * 3600.0
WINDOWS_H: Final = (1, 2, 4, 8, 24, 24, 24, 48, 96, 168)
LANES: Final = 8
HURRY_S: Final = 10.0
STEP_S: Final = 30.0
RATE: Final = 20_000.0
"""Work units a second of the idle pool."""


class Job(msgspec.Struct, frozen=True):
    entry: Entry
    weight: float
    arrives_s: float
    deadline_s: float
    chunk_cost: float  # true; what the entry says is an estimate
    chunks: int

    @property
    def cost(self) -> float:
        return self.chunk_cost * self.chunks


class Pool:
    """Capacity over time: a day of live traffic, and noise; `forecast` is what can be known."""

    def __init__(self, rng: random.Random, hours: int = 24 * 15) -> None:
        depth, off = rng.uniform(0.2, 0.8), rng.uniform(0.8, 1.2)
        shape = [1 - depth * (0.5 - 0.5 * math.cos(2 * math.pi * h / 24)) for h in range(24)]
        noise, self._true = 0.0, [0.0]
        self._forecast = [0.0]
        for hour in range(hours):
            noise = 0.7 * noise + rng.gauss(0, 0.07)
            true = RATE * shape[hour % 24] * math.exp(noise)
            self._true.append(self._true[-1] + 3600 * true)
            known = RATE * shape[hour % 24] * off
            self._forecast.append(self._forecast[-1] + 3600 * known)

    def done_by(self, at_s: float) -> float:
        return _at(self._true, at_s)

    def forecast_by(self, at_s: float) -> float:
        return _at(self._forecast, at_s)

    def rate(self, at_s: float) -> float:
        hour = int(at_s // 3600)
        return (self._true[hour + 1] - self._true[hour]) / 3600


def _at(sums: list[float], at_s: float) -> float:
    hour = min(int(at_s // 3600), len(sums) - 2)
    return sums[hour] + (sums[hour + 1] - sums[hour]) * (at_s / 3600 - hour)


def jobs_of(rng: random.Random, pool: Pool, load: float) -> list[Job]:
    tenants = rng.randint(3, 20)
    weights = [rng.choice((1, 1, 2, 4)) for _ in range(tenants)]
    sizes = [math.exp(rng.uniform(math.log(2e4), math.log(2e5))) for _ in range(tenants)]
    left = load * pool.done_by(HORIZON_S)
    jobs: list[Job] = []
    while left > 0:
        tenant, window_s = rng.randrange(tenants), 3600.0 * rng.choice(WINDOWS_H)
        arrives_s = rng.uniform(0, HORIZON_S)
        # No larger than half of what the pool can do in the window: the rest is refused at the door
        most = 0.5 * (pool.done_by(arrives_s + window_s) - pool.done_by(arrives_s))
        cost = min(most, 390 * sizes[tenant] * math.exp(rng.gauss(-1.5, 1.2)))
        chunks = max(1, round(cost / sizes[tenant]))
        left -= chunks * sizes[tenant]
        entry = Entry(
            batch_id=f"batch_{len(jobs)}",
            organization_id=f"org_{tenant}",
            priority=0,
            deadline_at=START + timedelta(seconds=arrives_s + window_s),
            created_at=START + timedelta(seconds=arrives_s),
            chunks=chunks,
            cost=chunks * sizes[tenant] * math.exp(rng.gauss(0, 0.15)),
        )
        jobs.append(
            Job(entry, weights[tenant], arrives_s, arrives_s + window_s, sizes[tenant], chunks)
        )
    return sorted(jobs, key=lambda job: job.arrives_s)


def fluid_edf(jobs: list[Job], pool: Pool) -> set[str]:
    """Batches that the clairvoyant fluid schedule meets."""
    met: set[str] = set()
    queue: list[tuple[float, str]] = []
    left = {job.entry.batch_id: job.cost for job in jobs}
    arriving, now_s = list(reversed(jobs)), 0.0
    while arriving or queue:
        while arriving and arriving[-1].arrives_s <= now_s:
            job = arriving.pop()
            heapq.heappush(queue, (job.deadline_s, job.entry.batch_id))
        if not queue:
            now_s = arriving[-1].arrives_s
            continue
        next_s = min(now_s + STEP_S, arriving[-1].arrives_s if arriving else now_s + STEP_S)
        budget = pool.done_by(next_s) - pool.done_by(now_s)
        while queue and budget > 0:
            deadline_s, batch_id = queue[0]
            if deadline_s < next_s:
                heapq.heappop(queue)
                continue
            spent = min(budget, left[batch_id])
            left[batch_id] -= spent
            budget -= spent
            if left[batch_id] <= 1e-6:
                met.add(batch_id)
                heapq.heappop(queue)
        now_s = max(next_s, now_s + 1e-3)
    return met


def ours(jobs: list[Job], pool: Pool) -> set[str]:
    """Batches that the scheduler meets, chunk by chunk on LANES replicas."""
    scheduler = Scheduler()
    by_id = {job.entry.batch_id: job for job in jobs}
    left = {job.entry.batch_id: job.chunks for job in jobs}
    met: set[str] = set()
    arriving = list(reversed(jobs))
    events: list[tuple[float, int, str]] = [(0.0, lane, "") for lane in range(LANES)]
    expiries: list[tuple[float, str]] = []
    hurried_s = -HURRY_S
    while events:
        now_s, lane, finished = heapq.heappop(events)
        if finished and (job := by_id[finished]):
            left[finished] -= 1
            scheduler.correct(
                job.entry.organization_id, job.chunk_cost - job.entry.cost / job.chunks
            )
            if left[finished] == 0 and now_s <= job.deadline_s:
                met.add(finished)
        while arriving and arriving[-1].arrives_s <= now_s:
            job = arriving.pop()
            scheduler.add(job.entry, job.weight)
            heapq.heappush(expiries, (job.deadline_s, job.entry.batch_id))
        while expiries and expiries[0][0] <= now_s:
            scheduler.remove(heapq.heappop(expiries)[1])
        if now_s - hurried_s >= HURRY_S:
            hurried_s = now_s
            scheduler.hurry(_capacity(pool, now_s))
        entry = scheduler.pick(lane)
        if entry is not None:
            cost = by_id[entry.batch_id].chunk_cost
            heapq.heappush(events, (now_s + cost * LANES / pool.rate(now_s), lane, entry.batch_id))
        elif arriving:
            heapq.heappush(events, (max(arriving[-1].arrives_s, now_s), lane, ""))
    return met


def _capacity(pool: Pool, now_s: float) -> Any:
    """What is learnt in the last hour corrects the forecast for the next ones."""
    past_s = max(0.0, now_s - 1800)
    seen = pool.done_by(now_s) - pool.done_by(past_s)
    known = pool.forecast_by(now_s) - pool.forecast_by(past_s)
    ratio = seen / known if known else 1.0
    here = pool.forecast_by(now_s)

    def until(at: datetime) -> float:
        at_s = (at - START).total_seconds()
        return max(0.0, ratio * (pool.forecast_by(at_s) - here)) if at_s > now_s else 0.0

    return until


def jain(shares: list[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def fairness(seed: int, tenants: int = 20, hours: int = 12) -> dict[str, float]:
    rng = random.Random(seed)
    scheduler = Scheduler()
    weight = {f"org_{n}": rng.choice((1, 2, 4)) for n in range(tenants)}
    true_cost: dict[str, float] = {}
    estimate: dict[str, float] = {}
    for n, name in enumerate(weight):
        cost = math.exp(rng.uniform(math.log(2e4), math.log(2e5)))
        off = rng.uniform(0.5, 1.5)
        for part in range(3):
            entry = Entry(
                batch_id=f"batch_{n}_{part}",
                organization_id=name,
                priority=rng.choice((0, 5)),
                deadline_at=START + timedelta(days=7),
                created_at=START,
                chunks=100_000,
                cost=100_000 * cost * off,
            )
            true_cost[name], estimate[name] = cost, cost * off
            scheduler.add(entry, weight[name])
    given = dict.fromkeys(weight, 0.0)
    hourly: list[float] = []
    before = dict(given)
    lanes = [(0.0, lane, "") for lane in range(64)]
    hour = 1
    while lanes[0][0] < hours * 3600:
        now_s, lane, name = heapq.heappop(lanes)
        if name:
            given[name] += true_cost[name]
            scheduler.correct(name, true_cost[name] - estimate[name])
        if now_s >= hour * 3600:
            hourly.append(jain([(given[t] - before[t]) / weight[t] for t in weight]))
            before, hour = dict(given), hour + 1
        picked = scheduler.pick(lane)
        assert picked is not None
        name = picked.organization_id
        took_s = true_cost[name] * 64 / (10 * RATE) * rng.uniform(0.8, 1.25)
        heapq.heappush(lanes, (now_s + took_s, lane, name))
    return {"jain": jain([given[t] / weight[t] for t in weight]), "worst_hour": min(hourly)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=4)
    seeds = parser.parse_args().seeds
    deadlines = []
    for load in (0.5, 0.7, 0.85, 0.95, 1.1):
        oracle = kept = extra = batches = 0
        for seed in range(seeds):
            rng = random.Random(f"{seed} {load}")
            pool = Pool(rng)
            jobs = jobs_of(rng, pool, load)
            best, mine = fluid_edf(jobs, pool), ours(jobs, pool)
            batches += len(jobs)
            oracle += len(best)
            kept += len(best & mine)
            extra += len(mine - best)
        row = {"load": load, "batches": batches, "fluid_meets": oracle, "of_those_met": kept}
        row |= {"met_besides": extra, "share": kept / oracle}
        deadlines.append(row)
        print(row, file=sys.stderr)
    fair = [fairness(seed) for seed in range(seeds)]
    print(
        json.dumps(
            {
                "seeds": seeds,
                "deadlines": deadlines,
                "jain_min": min(f["jain"] for f in fair),
                "jain_worst_hour": min(f["worst_hour"] for f in fair),
            }
        )
    )


if __name__ == "__main__":
    main()
