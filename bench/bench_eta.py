"""How far the estimate of a batch's end is from the truth, from a quarter of its progress on.

    python -m bench.bench_eta [--runs N]

Each run is a pool in simulated time. What is measured is what the product runs: `SqlStore` plans,
claims and commits, and learns what the pool gets done (bench/store_queue.py); `Forecasts` makes the
estimates, as for the answer to `GET /batches/ID`. Simulated are time and engines: 16 lanes take
the requests of leased chunks, eight at a time. One batch is watched. At 25, 40, 55, 70 and 85 % of
its requests the estimate is kept; when the batch is done, each is compared with the time that was
really left. A run counts when all five are within a fifth. Kinds of runs:

steady      the pool alone, lengths of answers log-normal; their mean is learnt on the way
heavy       the same with a tail (one answer in a hundred is twenty times as long)
diurnal     capacity follows a day of live traffic; four weeks were learnt, this one differs
unlearnt    the same, and nothing was learnt: only the recent pace is known
competing   2 to 8 other batches of 1 to 4 organizations with weights
arrivals    the same, and others come during the run, which nobody can foresee

Lines of half the batches name a bound for their answers, up to four times their mean. The last line
of stdout is the result as JSON.
"""

import argparse
import asyncio
import heapq
import json
import math
import random
import statistics
import sys
from collections import deque
from datetime import timedelta
from typing import Any, Final

import msgspec

from bench.store_queue import StoreQueue, Work, slice_of
from lowtide.config import Settings
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import ChunkKey, ChunkLease
from lowtide.core.scheduling.fair_queue import OUTPUT_COST
from lowtide.core.scheduling.forecast import HourOfWeek, cell_of
from lowtide.core.usage import Usage
from lowtide.core.validation.planner import Planner
from lowtide.limits import CHUNK_REQUESTS_MAX
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.scheduling.backlog_reading import BacklogReadings
from testkit.manual_clock import ManualClock
from testkit.sim.memory_blobs import BlobDisk, MemoryBlobs

LANES: Final = 16
PIECE: Final = 8
COMMITS: Final = 250
"""In the time that the watched batch would take alone."""
CHECKPOINTS: Final = (0.25, 0.40, 0.55, 0.70, 0.85)
TOLERANCE: Final = 0.20
KINDS: Final = ("steady", "heavy", "diurnal", "unlearnt", "competing", "arrivals")
CHUNKS: Final = (60, 240)
"""Of the watched batch; the pool is as fast as that takes the hours that are drawn."""


class Simulated(msgspec.Struct, eq=False):
    """One batch as the world knows it."""

    id: str
    organization_id: str
    weight: int
    arrives_s: float
    chunks: int
    input_tokens: int  # of a request
    output_tokens: float  # mean, true
    bound: int  # of an answer, as the lines name it; 0: they name none
    sigma: float
    tail: float

    @property
    def cost(self) -> float:
        """Work units of the whole, true on average."""
        output = OUTPUT_COST * self.output_tokens * (1 + 19 * self.tail)
        return self.chunks * CHUNK_REQUESTS_MAX * (self.input_tokens + output)

    def work(self) -> Work:
        return Work(
            id=self.id,
            organization_id=self.organization_id,
            endpoint="/v1/chat/completions",
            chunks=self.chunks,
            requests_each=CHUNK_REQUESTS_MAX,
            input_tokens=CHUNK_REQUESTS_MAX * self.input_tokens,
            output_tokens=self.chunks * CHUNK_REQUESTS_MAX * self.bound,
            window_s=7 * 24 * 3600.0,
        )

    def draw(self, rng: random.Random) -> Usage:
        """What a piece of its requests takes."""
        output = 0.0
        for _ in range(PIECE):
            length = math.exp(rng.gauss(-(self.sigma**2) / 2, self.sigma))
            output += self.output_tokens * length * (20 if rng.random() < self.tail else 1)
        return Usage(input_tokens=PIECE * self.input_tokens, output_tokens=int(output))


class InHand(msgspec.Struct, eq=False):
    """A leased chunk, and which of its requests have begun and been settled."""

    lease: ChunkLease
    begun: int = 0
    settled: int = 0


class World:
    """One run."""

    def __init__(self, kind: str, rng: random.Random) -> None:
        self.rng = rng
        self.clock = ManualClock()
        self.clock.advance(rng.uniform(0, 24) * 3600.0)
        self.begin = self.clock.now()
        is_diurnal = kind in ("diurnal", "unlearnt")
        # The diurnal kinds run for many hours, so that the day matters.
        self.hours = rng.uniform(4, 30) if is_diurnal else rng.uniform(0.3, 4)
        self.batches = self._batches(kind)
        self.base = self.batches[0].cost / (self.hours * 3600)
        self.hours_learnt: dict[int, HourOfWeek] = {}
        self._rates = [self.base] * (24 * 60)
        if is_diurnal:
            self._make_days(kind == "diurnal")

    def rate(self) -> float:
        first = self.begin.replace(minute=0, second=0, microsecond=0)
        return self._rates[int((self.clock.now() - first).total_seconds() // 3600)]

    def _make_days(self, learnt: bool) -> None:
        rng, depth = self.rng, self.rng.uniform(0.3, 0.7)
        shape = [1 - depth * (0.5 - 0.5 * math.cos(2 * math.pi * h / 24)) for h in range(24)]
        noise = 0.0
        for hour in range(len(self._rates)):
            noise = 0.7 * noise + rng.gauss(0, 0.05)
            of_day = (self.begin + timedelta(hours=hour)).hour
            self._rates[hour] = self.base * shape[of_day] * math.exp(noise)
        if not learnt:
            return
        for hour in range(168):
            at = self.begin + timedelta(hours=hour)
            usual = self.base * shape[at.hour]
            weeks = [usual * math.exp(rng.gauss(0, 0.07)) for _ in range(4)]
            known = HourOfWeek(weeks[0], weeks[0], 1)
            for week in weeks[1:]:
                known = known.learned(week)
            self.hours_learnt[cell_of(at)] = known

    def _batches(self, kind: str) -> list[Simulated]:
        rng = self.rng
        watched = self._batch("watched", "org_0", 1, 0.0, kind)
        watched.chunks = rng.randint(*CHUNKS)
        others = []
        if kind in ("competing", "arrivals"):
            for n in range(rng.randint(2, 8)):
                org = rng.randint(0, 4)
                other = self._batch(f"b{n}", f"org_{org}", (1, 1, 2, 3, 1)[org], 0.0, kind)
                others.append(_sized(other, rng.uniform(0.1, 1.0) * watched.cost))
        if kind == "arrivals":
            for n in range(rng.randint(1, 2)):
                at_s = rng.uniform(0.3, 1.5) * self.hours * 3600
                late = self._batch(f"late{n}", f"org_{5 + n}", 1, at_s, kind)
                others.append(_sized(late, rng.uniform(0.1, 0.4) * watched.cost))
        return [watched, *others]

    def _batch(self, name: str, org: str, weight: int, at_s: float, kind: str) -> Simulated:
        rng = self.rng
        output = math.exp(rng.uniform(math.log(50), math.log(1000)))
        is_bounded = rng.random() < 0.5
        return Simulated(
            id=name,
            organization_id=org,
            weight=weight,
            arrives_s=at_s,
            chunks=1,
            input_tokens=int(math.exp(rng.uniform(math.log(100), math.log(3000)))),
            output_tokens=output,
            bound=int(output * math.exp(rng.uniform(0, math.log(4)))) if is_bounded else 0,
            sigma=0.8,
            tail=0.01 if kind == "heavy" else 0.0,
        )

    async def run(self) -> dict[float, float | None]:
        """The relative error of each estimate; None: no estimate."""
        async with StoreQueue.opened() as queue:
            return await _Run(self, queue).run()


class _Run:
    """The lanes at work on one world's batches."""

    def __init__(self, world: World, queue: StoreQueue) -> None:
        self._world = world
        self._queue = queue
        self._by_id = {batch.id: batch for batch in world.batches}
        blobs, clock, catalogue = MemoryBlobs(BlobDisk()), world.clock, Catalogue()
        self._forecasts = Forecasts(
            BacklogReadings(queue.store.capacity, clock),
            blobs,
            catalogue,
            Planner(catalogue, lambda: Settings().limits),
        )
        self._begin_s = clock.monotonic()
        self._pieces: list[tuple[float, int, InHand, int, Usage]] = []
        self._order = 0
        self._idle = LANES
        self._ready: deque[InHand] = deque()
        self._held: dict[ChunkKey, InHand] = {}
        self._per_step = 1
        self._watched_settled = 0

    async def run(self) -> dict[float, float | None]:
        world, queue = self._world, self._queue
        if world.hours_learnt:
            await queue.learnt(world.hours_learnt)
        arriving = sorted(world.batches, key=lambda batch: -batch.arrives_s)
        step_s = world.hours * 3600 / COMMITS
        watched: Batch | None = None
        total = world.batches[0].chunks * CHUNK_REQUESTS_MAX
        open_points = list(CHECKPOINTS)
        estimates: dict[float, tuple[float, float | None]] = {}
        while True:
            now_s = world.clock.monotonic() - self._begin_s
            await self._commit(now_s)
            while arriving and arriving[-1].arrives_s <= now_s:
                batch = arriving.pop()
                await queue.organization(batch.organization_id, batch.weight, world.clock.now())
                made = await queue.add(batch.work(), world.clock.now())
                watched = made if batch.id == world.batches[0].id else watched
            assert watched is not None
            while open_points and self._watched_settled >= open_points[0] * total:
                found = await self._forecasts.of([watched])
                estimates[open_points.pop(0)] = (now_s, found[watched.id].eta_s)
            if self._watched_settled >= total:
                return {
                    point: None if left is None else left / (now_s - then) - 1
                    for point, (then, left) in estimates.items()
                }
            await self._claim(now_s)
            world.clock.advance(step_s)

    async def _commit(self, now_s: float) -> None:
        """Store what the lanes have finished by now, and go on from where each stood."""
        done: dict[ChunkKey, tuple[ChunkLease, list[int], Usage]] = {}
        while self._pieces and self._pieces[0][0] <= now_s:
            at_s, _, chunk, first, usage = heapq.heappop(self._pieces)
            key = chunk.lease.key
            _, indices, so_far = done.get(key, (chunk.lease, [], Usage()))
            indices += range(first, first + PIECE)
            done[key] = (chunk.lease, indices, so_far + usage)
            chunk.settled += PIECE
            if chunk.settled == chunk.lease.count:
                del self._held[key]
            self._watched_settled += PIECE * (key.batch_id == self._world.batches[0].id)
            self._idle += 1
            self._begin(at_s)
        self._per_step = len(done) + 1
        if done:
            slices = [slice_of(*each) for each in done.values()]
            held = [chunk.lease for chunk in self._held.values()]
            await self._queue.commit(slices, self._world.clock.now(), held)

    async def _claim(self, now_s: float) -> None:
        """As many chunks ahead as the lanes began in the last step."""
        wanted = self._per_step + 1 - len(self._ready)
        if wanted > 0:
            for lease in await self._queue.claim(wanted, self._world.clock.now()):
                self._held[lease.key] = chunk = InHand(lease)
                self._ready.append(chunk)
        while self._idle and self._ready:
            self._begin(now_s)

    def _begin(self, at_s: float) -> None:
        """An idle lane takes the next requests, if any are leased."""
        if not self._ready:
            return
        self._idle -= 1
        chunk = self._ready[0]
        usage = self._by_id[chunk.lease.key.batch_id].draw(self._world.rng)
        work = usage.input_tokens + OUTPUT_COST * usage.output_tokens
        self._order += 1
        ends_s = at_s + work * LANES / self._world.rate()
        heapq.heappush(self._pieces, (ends_s, self._order, chunk, chunk.begun, usage))
        chunk.begun += PIECE
        if chunk.begun == chunk.lease.count:
            self._ready.popleft()


def _sized(batch: Simulated, cost: float) -> Simulated:
    """With as many chunks as make it cost that."""
    batch.chunks = max(1, round(cost / batch.cost))
    return batch


def within(errors: dict[float, float | None]) -> bool:
    return all(error is not None and abs(error) <= TOLERANCE for error in errors.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=12, help="of each kind")
    runs = parser.parse_args().runs
    kinds: dict[str, Any] = {}
    good = points = good_points = 0
    for kind in KINDS:
        found = [
            asyncio.run(World(kind, random.Random(f"{kind} {seed}")).run()) for seed in range(runs)
        ]
        errors = [error for run in found for error in run.values()]
        kinds[kind] = {
            "runs_within": sum(map(within, found)) / runs,
            "estimates_within": statistics.mean(
                error is not None and abs(error) <= TOLERANCE for error in errors
            ),
            "median_error": statistics.median(abs(e) if e is not None else 9.9 for e in errors),
        }
        good += sum(map(within, found))
        points += len(errors)
        good_points += sum(error is not None and abs(error) <= TOLERANCE for error in errors)
        print(kind, kinds[kind], file=sys.stderr)
    total = {"runs_within": good / (runs * len(KINDS)), "estimates_within": good_points / points}
    print(json.dumps({"runs_of_each": runs, "kinds": kinds, "all": total}))


if __name__ == "__main__":
    main()
