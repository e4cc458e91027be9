"""Weeks of batches on replicas that are started for them, against one who knows the whole week.

    python -m bench.bench_scale

Simulated are time and the engines (testkit/scaled_pool.py); what is decided is what the product
decides, from the work by deadline to what a scaler is asked for. A start takes 526 s, and is paid
for. Beside it, on the same weeks: as many replicas as are ever needed, always on; and all that
there may be as soon as there is work. The last line of stdout is the result as JSON.
"""

import json
import random
from typing import Any, Final

from testkit.scaled_pool import PoolJob, ScaledPool, at_once, by_deadline, least_hours

WEEK_H: Final = 168.0
DAY: Final = (
    PoolJob(9.0, 24.0, 5.0),
    PoolJob(11.5, 6.0, 3.0),
    PoolJob(14.0, 24.0, 9.0),
    PoolJob(20.0, 12.0, 4.0),
)
"""Four batches a day: 21 hours of work of one replica."""


def regular() -> list[PoolJob]:
    """The same four batches on each day."""
    return [job._replace(created_h=24 * n + job.created_h) for n in range(7) for job in DAY]


def seeded(seed: int, count: int) -> list[PoolJob]:
    """Batches of many sizes at any hour, none larger than a replica or two can do in its window."""
    draw = random.Random(seed)
    jobs = []
    for _ in range(count):
        window = draw.choice((2.0, 4.0, 8.0, 12.0, 24.0, 24.0, 48.0))
        busy = min(draw.lognormvariate(0.5, 0.9), 0.4 * window)
        jobs.append(PoolJob(round(draw.uniform(0, WEEK_H), 2), window, round(busy, 2)))
    return jobs


def sparse() -> list[PoolJob]:
    """One batch of two hours on each day, with a window of eight."""
    return [PoolJob(24.0 * n + 10.0, 8.0, 2.0) for n in range(7)]


def misjudged(jobs: list[PoolJob], seed: int) -> list[PoolJob]:
    """The same jobs, whose work is estimated up to a fifth too low or too high."""
    draw = random.Random(seed)
    return [job._replace(estimate=draw.uniform(0.8, 1.2)) for job in jobs]


WEEKS: Final = {
    "four batches a day": regular(),
    "one batch a day": sparse(),
    **{f"60 batches, seed {seed}": seeded(seed, 60) for seed in (1, 2, 3)},
    "200 batches, seed 4": seeded(4, 200),
    "60 batches, seed 1, estimates up to a fifth off": misjudged(seeded(1, 60), 5),
    "200 batches, seed 4, estimates up to a fifth off": misjudged(seeded(4, 200), 6),
}


def measured(jobs: list[PoolJob]) -> dict[str, Any]:
    """One week, and the hours until its last deadline."""
    hours = max(WEEK_H, max(job.created_h + job.window_h for job in jobs)) + 1
    ours, eager = ScaledPool(jobs, by_deadline), ScaledPool(jobs, at_once)
    for pool in (ours, eager):
        pool.run(hours)
    return {
        "batches": len(jobs),
        "least_h": round(least_hours(jobs), 1),
        "paid_h": round(ours.paid_h, 1),
        "ratio": round(ours.paid_h / least_hours(jobs), 3),
        "late": ours.late + len(ours.open),
        "starts": ours.starts,
        "most": ours.most,
        "always_on_h": round(hours * ours.most, 1),
        "at_once_h": round(eager.paid_h, 1),
    }


def main() -> None:
    print(json.dumps({name: measured(jobs) for name, jobs in WEEKS.items()}))


if __name__ == "__main__":
    main()
