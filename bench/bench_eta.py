"""How far the estimate of a batch's end is from the truth, from a quarter of its progress on.

    python -m bench.bench_eta [--runs N]

Each run is a pool in simulated time: the scheduler of core/scheduling/fair_queue.py gives out
pieces of 16 requests to 16 lanes, and counters move as commits would move them. One batch is
watched. At 25, 40, 55, 70 and 85 % of its requests the estimate is made from what the store would
know then (core/scheduling/feasibility.py, core/scheduling/forecast.py) and kept; when the batch is
done, each is compared with the time that was really left. A run counts when all five are within a
fifth. Kinds of runs:

steady      the pool alone, lengths of answers log-normal; their mean is learnt on the way
heavy       the same with a tail (one answer in a hundred is twenty times as long)
diurnal     capacity follows a day of live traffic; four weeks were learnt, this one differs
unlearnt    the same, and nothing was learnt: only the recent pace is known
competing   2 to 8 other batches of 1 to 4 organizations with weights
arrivals    the same, and others come during the run, which nobody can foresee

The last line of stdout is the result as JSON.
"""

import argparse
import heapq
import json
import math
import random
import statistics
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from lowtide.core.scheduling.fair_queue import OUTPUT_COST, Entry, Scheduler
from lowtide.core.scheduling.feasibility import Backlog, finish_s
from lowtide.core.scheduling.forecast import (
    Done,
    HourOfWeek,
    Throughput,
    capacity_forecast,
    cell_of,
)
from lowtide.core.usage import Usage

START: Final = datetime(2026, 3, 2, tzinfo=UTC)
LANES: Final = 16
PIECE: Final = 16
COMMIT_INTERVAL_S: Final = 5.0
CHECKPOINTS: Final = (0.25, 0.40, 0.55, 0.70, 0.85)
TOLERANCE: Final = 0.20
KINDS: Final = ("steady", "heavy", "diurnal", "unlearnt", "competing", "arrivals")
RATE: Final = 20_000.0


class Batch(msgspec.Struct, eq=False):
    """One batch as the world knows it."""

    id: str
    organization_id: str
    weight: float
    arrives_s: float
    requests: int
    input_tokens: int
    output_tokens: float  # mean, true
    assumed_output: float  # mean, as planned
    sigma: float
    tail: float
    settled: int = 0
    usage: Usage = Usage()

    def backlog(self) -> Backlog:
        planned = self.requests * (self.input_tokens + OUTPUT_COST * self.assumed_output)
        return Backlog(
            batch_id=self.id,
            model="m",
            organization_id=self.organization_id,
            weight=self.weight,
            deadline_at=START + timedelta(days=7),
            created_at=START + timedelta(seconds=self.arrives_s),
            requests=self.requests,
            settled=self.settled,
            planned_tokens=self.requests * self.input_tokens,
            settled_tokens=self.settled * self.input_tokens,
            planned_cost=planned,
            usage=self.usage,
        )

    def draw(self, rng: random.Random) -> Usage:
        """What a piece of its requests takes."""
        output = 0.0
        for _ in range(PIECE):
            length = math.exp(rng.gauss(-(self.sigma**2) / 2, self.sigma))
            output += self.output_tokens * length * (20 if rng.random() < self.tail else 1)
        return Usage(input_tokens=PIECE * self.input_tokens, output_tokens=int(output))


class World:
    """One run."""

    def __init__(self, kind: str, rng: random.Random) -> None:
        self.rng = rng
        self.begin_s = rng.uniform(0, 24) * 3600.0
        self.pace = Throughput.begin(self.now(0.0))
        self.cells: dict[int, HourOfWeek] = {}
        self._rates = [RATE] * (24 * 30)
        if kind in ("diurnal", "unlearnt"):
            self._make_days(kind == "diurnal")
        self.batches = self._batches(kind)
        self.scheduler = Scheduler()
        self.estimates: dict[float, tuple[float, float | None]] = {}

    def now(self, at_s: float) -> datetime:
        return START + timedelta(seconds=self.begin_s + at_s)

    def rate(self, at_s: float) -> float:
        return self._rates[int((self.begin_s + at_s) // 3600)]

    def _make_days(self, learnt: bool) -> None:
        depth = self.rng.uniform(0.3, 0.7)
        shape = [1 - depth * (0.5 - 0.5 * math.cos(2 * math.pi * h / 24)) for h in range(24)]
        noise = 0.0
        for hour in range(len(self._rates)):
            noise = 0.7 * noise + self.rng.gauss(0, 0.05)
            self._rates[hour] = RATE * shape[hour % 24] * math.exp(noise)
        if not learnt:
            return
        for cell in range(168):
            weeks = [RATE * shape[cell % 24] * math.exp(self.rng.gauss(0, 0.07)) for _ in range(4)]
            known = HourOfWeek(weeks[0], weeks[0], 1)
            for week in weeks[1:]:
                known = known.learned(week)
            self.cells[cell_of(START + timedelta(hours=cell))] = known

    def _batches(self, kind: str) -> list[Batch]:
        rng = self.rng
        # The diurnal kinds run for many hours, so that the day matters.
        hours = rng.uniform(4, 30) if self.cells else rng.uniform(0.3, 4)
        watched = self._batch("watched", "org_0", 1.0, 0.0, hours, kind)
        others = []
        if kind in ("competing", "arrivals"):
            for n in range(rng.randint(2, 8)):
                org = rng.randint(0, 4)
                share = hours * rng.uniform(0.1, 1.0)
                weight = float((1, 1, 2, 3, 1)[org])
                others.append(self._batch(f"b{n}", f"org_{org}", weight, 0.0, share, kind))
        if kind == "arrivals":
            for n in range(rng.randint(1, 2)):
                at_s = rng.uniform(0.3, 1.5) * hours * 3600
                share = hours * rng.uniform(0.1, 0.4)
                others.append(self._batch(f"late{n}", f"org_{5 + n}", 1.0, at_s, share, kind))
        return [watched, *others]

    def _batch(
        self, name: str, org: str, weight: float, at_s: float, hours: float, kind: str
    ) -> Batch:
        rng = self.rng
        input_tokens = int(math.exp(rng.uniform(math.log(100), math.log(3000))))
        tail = 0.01 if kind == "heavy" else 0.0
        output = math.exp(rng.uniform(math.log(50), math.log(1000)))
        cost = input_tokens + OUTPUT_COST * output * (1 + 19 * tail)
        return Batch(
            id=name,
            organization_id=org,
            weight=weight,
            arrives_s=at_s,
            requests=PIECE * max(40, min(6000, int(hours * 3600 * RATE / cost / PIECE))),
            input_tokens=input_tokens,
            output_tokens=output,
            assumed_output=output * math.exp(rng.uniform(-1, 1)),
            sigma=0.8,
            tail=tail,
        )

    def run(self) -> dict[float, float | None]:
        """The relative error of each estimate; None: no estimate."""
        watched = self.batches[0]
        by_id = {batch.id: batch for batch in self.batches}
        arriving = sorted(self.batches, key=lambda batch: -batch.arrives_s)
        events: list[tuple[float, int, str]] = [(0.0, lane, "") for lane in range(LANES)]
        uses: dict[int, Usage] = {}
        commit_interval_s, done = COMMIT_INTERVAL_S, Done()
        open_points = list(CHECKPOINTS)
        while True:
            at_s, lane, name = heapq.heappop(events)
            if name:
                batch, usage = by_id[name], uses[lane]
                batch.settled += PIECE
                batch.usage = batch.usage + usage
                work = usage.input_tokens + OUTPUT_COST * usage.output_tokens
                done = Done(
                    done.work + work,
                    done.requests + PIECE,
                    done.output_tokens + usage.output_tokens,
                )
            while arriving and arriving[-1].arrives_s <= at_s:
                batch = arriving.pop()
                part = batch.backlog()
                self.scheduler.add(
                    Entry(
                        batch_id=batch.id,
                        organization_id=batch.organization_id,
                        priority=0,
                        deadline_at=part.deadline_at,
                        created_at=part.created_at,
                        chunks=batch.requests // PIECE,
                        cost=part.planned,
                    ),
                    batch.weight,
                )
            if at_s >= commit_interval_s:
                self.pace, _ = self.pace.after(done, self.now(at_s), backlogged=True)
                done, commit_interval_s = Done(), at_s + COMMIT_INTERVAL_S
            while open_points and watched.settled >= open_points[0] * watched.requests:
                self.estimates[open_points.pop(0)] = (at_s, self._estimate(watched, at_s))
            if watched.settled >= watched.requests:
                return {
                    point: None if left is None else (left - (at_s - then)) / (at_s - then)
                    for point, (then, left) in self.estimates.items()
                }
            entry = self.scheduler.pick(lane)
            if entry is None:
                continue
            uses[lane] = usage = by_id[entry.batch_id].draw(self.rng)
            work = usage.input_tokens + OUTPUT_COST * usage.output_tokens
            busy = LANES  # every lane works until the queue is dry
            heapq.heappush(events, (at_s + work * busy / self.rate(at_s), lane, entry.batch_id))
            self.scheduler.correct(entry.organization_id, work - entry.cost / entry.chunks)

    def _estimate(self, watched: Batch, at_s: float) -> float | None:
        view = capacity_forecast(self.now(at_s), self.pace, self.cells)
        known = [
            batch.backlog()
            for batch in self.batches
            if batch.arrives_s <= at_s and batch.settled < batch.requests
        ]
        return finish_s(known, view).get(watched.id) if view is not None else None


def within(errors: dict[float, float | None]) -> bool:
    return all(error is not None and abs(error) <= TOLERANCE for error in errors.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=40, help="of each kind")
    runs = parser.parse_args().runs
    kinds: dict[str, Any] = {}
    good = points = good_points = 0
    for kind in KINDS:
        found = [World(kind, random.Random(f"{kind} {seed}")).run() for seed in range(runs)]
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
