"""What a scheduling decision costs: one chunk of 10 million requests, 1,000 batches, 100 tenants.

    python -m bench.bench_schedule

The pure scheduler of core/scheduling/fair_queue.py over 78,125 chunks and 100 replicas, drained to
the end, with urgency looked at anew every 400 chunks (ten seconds of 100 replicas at 50 requests a
second) and a correction for every chunk. The yardstick is a bare heap of as many batches that is
popped and pushed once a chunk. The last line of stdout is the result as JSON.
"""

import heapq
import json
import random
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from lowtide.core.scheduling.fair_queue import Entry, Scheduler
from lowtide.limits import CHUNK_REQUESTS_MAX

START: Final = datetime(2026, 3, 1, tzinfo=UTC)
BATCHES: Final = 1_000
TENANTS: Final = 100
REPLICAS: Final = 100
SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
"""Requests queued; the first is 79 chunks."""
HURRY_EVERY: Final = 400


def queue_of(requests: int, rng: random.Random) -> list[Entry]:
    chunks = max(1, requests // CHUNK_REQUESTS_MAX)
    batches = min(BATCHES, chunks)
    return [
        Entry(
            batch_id=f"batch_{n}",
            organization_id=f"org_{n % TENANTS}",
            priority=rng.choice((0, 0, 0, 5)),
            deadline_at=START + timedelta(hours=rng.uniform(1, 168)),
            created_at=START,
            chunks=(size := chunks // batches + (n < chunks % batches)),
            cost=size * rng.uniform(1e5, 4e5),
        )
        for n in range(batches)
    ]


def drain(requests: int) -> dict[str, Any]:
    rng = random.Random(7)
    scheduler = Scheduler()
    entries = queue_of(requests, rng)
    total = sum(entry.cost for entry in entries)
    for n, entry in enumerate(entries):
        scheduler.add(entry, weight=1 + n % 3)
    rate = total / (80 * 3600)
    now, picked, slowest = START, 0, 0.0
    begin = time.perf_counter()
    while True:
        at = time.perf_counter()
        if picked % HURRY_EVERY == 0:
            scheduler.hurry(partial(_steady, rate, now))
        picked_from = scheduler.pick(picked % REPLICAS)
        if picked_from is None:
            break
        scheduler.correct(picked_from.organization_id, 0.0)
        picked += 1
        now += timedelta(seconds=3.0)
        slowest = max(slowest, time.perf_counter() - at)
    spent = time.perf_counter() - begin
    return {
        "requests": requests,
        "chunks": picked,
        "us_per_chunk": spent / picked * 1e6,
        "slowest_us": slowest * 1e6,
    }


def _steady(rate: float, now: datetime, until: datetime) -> float:
    return rate * (until - now).total_seconds()


def yardstick(chunks: int) -> float:
    """Microseconds to pop and push a heap of BATCHES pairs."""
    rng = random.Random(7)
    heap = [(rng.random(), f"batch_{n}") for n in range(BATCHES)]
    heapq.heapify(heap)
    begin = time.perf_counter()
    for _ in range(chunks):
        key, name = heapq.heappop(heap)
        heapq.heappush(heap, (key + 1.0, name))
    return (time.perf_counter() - begin) / chunks * 1e6


def main() -> None:
    results = []
    for requests in SIZES:
        results.append(drain(requests))
        print(f"{requests:>11,} {results[-1]['us_per_chunk']:6.2f} us a chunk", file=sys.stderr)
    print(
        json.dumps(
            {
                "batches": BATCHES,
                "tenants": TENANTS,
                "replicas": REPLICAS,
                "results": results,
                "heap_us": yardstick(results[-1]["chunks"]),
            }
        )
    )


if __name__ == "__main__":
    main()
