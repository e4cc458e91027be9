"""Deadlines and fairness of the queue, against a clairvoyant fluid schedule.

    python -m bench.bench_deadlines [--seeds N]

What is measured is what the product runs: the claims, commits and expiry of `SqlStore`, and
`UrgencyLoop` (bench/store_queue.py). Simulated are time and the engines.

Deadlines: seeded days of one pool. Batches with windows of 1 hour to 2 days arrive from tenants of
different weights; the pool's true capacity follows a day of live traffic, with noise that lasts for
hours. The product knows what four earlier weeks taught, off by up to a fifth, what it sees, and
estimated costs. The yardstick knows the true capacity and costs and serves the earliest deadline as
a fluid, dropping what expired: no schedule meets every deadline that it misses and all that it
meets. Counted: of the deadlines that it meets, those that we meet.

Fairness: all tenants have more work than the pool can do, requests differ tenfold in size and the
estimates are off by half, tenant by tenant. Jain's index over what each was given by weight, at the
end and in the worst hour. The last line of stdout is the result as JSON.
"""

import argparse
import asyncio
import heapq
import json
import math
import random
import sys
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from bench.store_queue import StoreQueue, Work, slice_of
from lowtide.core.batches.chunk import ChunkLease
from lowtide.core.scheduling.forecast import HourOfWeek
from lowtide.core.usage import Usage
from lowtide.limits import CHUNK_REQUESTS_MAX

START: Final = datetime(2026, 3, 2, tzinfo=UTC)
HORIZON_S: Final = 3 * 24 * 3600.0
WINDOWS_H: Final = (1, 2, 4, 8, 24, 24, 24, 48)
LOADS: Final = (0.7, 0.85, 0.95, 1.1)
TICK_S: Final = 120.0
"""Between two commits and claims: each claims what the pool will do until the next."""
AT_ONCE: Final = 2  # chunks, as a worker with a window of 64 claims them
STEP_S: Final = 30.0
RATE: Final = 2_500.0
"""Work units a second of the idle pool, one replica: a chunk takes 8 to 80 seconds."""
EMBEDDINGS: Final = "/v1/embeddings"
"""Work of input tokens alone, so that estimate and truth are what is drawn here."""


class Job(msgspec.Struct, frozen=True):
    work: Work
    weight: int
    arrives_s: float
    deadline_s: float
    chunk_cost: float  # true; what the work says is an estimate
    chunks: int

    @property
    def cost(self) -> float:
        return self.chunk_cost * self.chunks


class Pool:
    """Capacity over time: a day of live traffic, and noise; `learnt` is what can be known of it."""

    def __init__(self, rng: random.Random, hours: int = 24 * 15) -> None:
        depth, off = rng.uniform(0.2, 0.8), rng.uniform(0.8, 1.2)
        shape = [1 - depth * (0.5 - 0.5 * math.cos(2 * math.pi * h / 24)) for h in range(24)]
        self.learnt = {
            hour: HourOfWeek(0.9 * RATE * shape[hour % 24] * off, RATE * shape[hour % 24] * off, 4)
            for hour in range(168)
        }
        noise, self._true = 0.0, [0.0]
        for hour in range(hours):
            noise = 0.7 * noise + rng.gauss(0, 0.07)
            true = RATE * shape[hour % 24] * math.exp(noise)
            self._true.append(self._true[-1] + 3600 * true)

    def done_by(self, at_s: float) -> float:
        return _at(self._true, at_s)

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
        # No larger than half of what the pool can do in the window: the rest is refused at once
        most = 0.5 * (pool.done_by(arrives_s + window_s) - pool.done_by(arrives_s))
        cost = min(most, 60 * sizes[tenant] * math.exp(rng.gauss(-1.5, 1.2)))
        chunks = max(1, round(cost / sizes[tenant]))
        left -= chunks * sizes[tenant]
        work = Work(
            id=f"batch_{len(jobs)}",
            organization_id=f"org_{tenant}",
            endpoint=EMBEDDINGS,
            chunks=chunks,
            requests_each=CHUNK_REQUESTS_MAX,
            input_tokens=int(sizes[tenant] * math.exp(rng.gauss(0, 0.15))),
            window_s=window_s,
        )
        jobs.append(
            Job(work, weights[tenant], arrives_s, arrives_s + window_s, sizes[tenant], chunks)
        )
    return sorted(jobs, key=lambda job: job.arrives_s)


def fluid_edf(jobs: list[Job], pool: Pool) -> set[str]:
    """Batches that the clairvoyant fluid schedule meets."""
    met: set[str] = set()
    queue: list[tuple[float, str]] = []
    left = {job.work.id: job.cost for job in jobs}
    arriving, now_s = list(reversed(jobs)), 0.0
    while arriving or queue:
        while arriving and arriving[-1].arrives_s <= now_s:
            job = arriving.pop()
            heapq.heappush(queue, (job.deadline_s, job.work.id))
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


class Lanes:
    """Replicas that work on one chunk after another; a finished chunk waits for the next commit."""

    def __init__(self, count: int) -> None:
        self._free_at = [0.0] * count
        self._done: list[tuple[float, int, ChunkLease, float]] = []
        self._given = 0

    def wanted(self, until_s: float) -> int:
        """Chunks that the lanes will begin by then."""
        return sum(free_s < until_s for free_s in self._free_at)

    def give(self, lease: ChunkLease, now_s: float, cost: float, took_s: float) -> None:
        """The lane that is free first begins it as soon as it can."""
        begins_s = max(now_s, heapq.heappop(self._free_at))
        heapq.heappush(self._free_at, begins_s + took_s)
        self._given += 1
        heapq.heappush(self._done, (begins_s + took_s, self._given, lease, cost))

    def finished(self, now_s: float) -> list[tuple[float, ChunkLease, float]]:
        """When, what, and the work it took."""
        found = []
        while self._done and self._done[0][0] <= now_s:
            at_s, _, lease, cost = heapq.heappop(self._done)
            found.append((at_s, lease, cost))
        return found


async def commit(
    queue: StoreQueue, found: list[tuple[float, ChunkLease, float]], at_s: float
) -> None:
    if found:
        slices = [
            slice_of(lease, range(lease.count), Usage(input_tokens=round(cost)))
            for _, lease, cost in found
        ]
        await queue.commit(slices, instant(at_s))


async def ours(jobs: list[Job], pool: Pool) -> set[str]:
    """Batches that the product meets, chunk by chunk."""
    by_id = {job.work.id: job for job in jobs}
    left = {job.work.id: job.chunks for job in jobs}
    met: set[str] = set()
    arriving, lanes, now_s = list(reversed(jobs)), Lanes(1), 0.0
    last_s = max(job.deadline_s for job in jobs)
    async with StoreQueue.opened() as queue:
        await queue.learnt(pool.learnt)
        while now_s <= last_s:
            found = lanes.finished(now_s)
            for at_s, lease, _ in found:
                left[lease.key.batch_id] -= 1
                if not left[lease.key.batch_id] and at_s <= by_id[lease.key.batch_id].deadline_s:
                    met.add(lease.key.batch_id)
            await commit(queue, found, now_s)
            await queue.expire(instant(now_s))
            while arriving and arriving[-1].arrives_s <= now_s:
                job = arriving.pop()
                organization_id = job.work.organization_id
                await queue.organization(organization_id, job.weight, instant(now_s))
                window_s = job.deadline_s - now_s  # what is left of it at this tick
                await queue.add(
                    msgspec.structs.replace(job.work, window_s=window_s), instant(now_s)
                )
            await queue.hurry(instant(now_s))
            while lanes.wanted(now_s + TICK_S):
                leases = await queue.claim(AT_ONCE, instant(now_s))
                for lease in leases:
                    cost = by_id[lease.key.batch_id].chunk_cost
                    lanes.give(lease, now_s, cost, cost / pool.rate(now_s))
                if not leases:
                    break
            now_s += TICK_S
    return met


def instant(at_s: float) -> datetime:
    return START + timedelta(seconds=at_s)


def jain(shares: list[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


async def fairness(seed: int, tenants: int = 20, hours: int = 6) -> dict[str, float]:
    rng = random.Random(seed)
    weight = {f"org_{n}": rng.choice((1, 2, 4)) for n in range(tenants)}
    true_cost: dict[str, float] = {}
    given = dict.fromkeys(weight, 0.0)
    hourly: list[float] = []
    lanes, rate = Lanes(32), 20 * RATE
    async with StoreQueue.opened() as queue:
        for n, name in enumerate(weight):
            await queue.organization(name, weight[name], START)
            true_cost[name] = math.exp(rng.uniform(math.log(2e4), math.log(2e5)))
            off = rng.uniform(0.5, 1.5)
            for part in range(3):
                work = Work(
                    id=f"batch_{n}x{part}",
                    organization_id=name,
                    endpoint=EMBEDDINGS,
                    chunks=math.ceil(hours * 3600 * rate / 3 / true_cost[name] / 4),
                    requests_each=CHUNK_REQUESTS_MAX,
                    input_tokens=int(true_cost[name] * off),
                    window_s=7 * 24 * 3600.0,
                    priority=rng.choice((0, 5)),
                )
                await queue.add(work, START)
        now_s, before = 0.0, dict(given)
        while now_s < hours * 3600:
            found = lanes.finished(now_s)
            for _, lease, cost in found:
                given[lease.organization_id] += cost
            await commit(queue, found, now_s)
            wanted = lanes.wanted(now_s + STEP_S)
            for lease in await queue.claim(wanted, instant(now_s)) if wanted else ():
                cost = true_cost[lease.organization_id]
                lanes.give(lease, now_s, cost, cost * 32 / rate * rng.uniform(0.8, 1.25))
            now_s += STEP_S
            if now_s % 3600 == 0:
                hourly.append(jain([(given[t] - before[t]) / weight[t] for t in weight]))
                before = dict(given)
    return {"jain": jain([given[t] / weight[t] for t in weight]), "worst_hour": min(hourly)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    seeds = parser.parse_args().seeds
    deadlines = []
    for load in LOADS:
        oracle = kept = extra = batches = 0
        for seed in range(seeds):
            rng = random.Random(f"{seed} {load}")
            pool = Pool(rng)
            jobs = jobs_of(rng, pool, load)
            best, mine = fluid_edf(jobs, pool), asyncio.run(ours(jobs, pool))
            batches += len(jobs)
            oracle += len(best)
            kept += len(best & mine)
            extra += len(mine - best)
        row = {"load": load, "batches": batches, "fluid_meets": oracle, "of_those_met": kept}
        row |= {"met_besides": extra, "share": kept / oracle}
        deadlines.append(row)
        print(row, file=sys.stderr)
    fair = [asyncio.run(fairness(seed)) for seed in range(seeds)]
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
