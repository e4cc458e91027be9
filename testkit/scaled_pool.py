"""A pool of replicas in virtual time that is as large as batches need: wanted, asked, started.

Tests and benchmarks run it. The number goes the whole way of the product: from the work by deadline
(core/scheduling/wanted_replicas.py), held (`damped`), to what a scaler is asked for
(core/replicas/scaler_asks.py); what is asked for answers a cold start later, and is paid for from
the moment it was asked for. Invariant: nothing here knows what comes later.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from lowtide.core.replicas.scaler_asks import Bounds, ReplicaNeed, ScalerStatus, next_ask
from lowtide.core.scheduling.wanted_replicas import (
    Held,
    ModelLoad,
    OpenTime,
    Wanted,
    damped,
    held_after,
    wanted_replicas,
)

START: Final = datetime(2026, 11, 23, tzinfo=UTC)
HOUR: Final = 3600.0
COLD_S: Final = 526.0
"""Seconds that a replica takes to answer: 113 for a node, 395 to load a model, 18 of checks, as the
proposal of llm-d's autoscaling measured it."""
STEP_S: Final = 30.0
RATE: Final = 100.0
"""Work units a second of one replica."""
REPLICAS_MAX: Final = 8

Policy = Callable[[ModelLoad, datetime], Wanted]
"""The number that the present knowledge asks for."""


class PoolJob(NamedTuple):
    """A batch: hour of its creation, hours until its deadline, hours of work of one replica.
    `estimate`: how much of its work is known of, as a share of what it is.
    """

    created_h: float
    window_h: float
    busy_h: float
    estimate: float = 1.0


def by_deadline(load: ModelLoad, now: datetime) -> Wanted:
    """What the product does: at the latest safe moment."""
    return wanted_replicas(load, now, OpenTime(now))


def at_once(load: ModelLoad, _: datetime) -> Wanted:
    """What an autoscaler by backlog does: as many as it may have while there is work."""
    return Wanted(replicas=load.replicas_max if load.work else 0)


class ScaledPool:
    """Runs the jobs to the end of the time that it is given."""

    def __init__(self, jobs: Sequence[PoolJob], policy: Policy = by_deadline) -> None:
        self._policy = policy
        self._coming = sorted(jobs)
        self.open: list[list[float]] = []
        """Deadline in hours, work units left, and the share of these that is known of, of each
        batch that is not done.
        """
        self.running = 0
        self._ready_h: list[float] = []
        self.paid_s = 0.0
        self.starts = 0
        self.most = 0
        self.late = 0
        self._held: Held | None = Held(0, START)
        self._changed_at = START - timedelta(days=1)

    def run(self, hours: float) -> None:
        """Goes on for so many hours."""
        for step in range(int(hours * HOUR / STEP_S)):
            self._step(step * STEP_S / HOUR)

    @property
    def paid_h(self) -> float:
        """Hours of replicas, those of starting them included."""
        return self.paid_s / HOUR

    def _step(self, hour: float) -> None:
        while self._coming and self._coming[0].created_h <= hour:
            job = self._coming.pop(0)
            work = job.busy_h * HOUR * RATE
            self.open.append([job.created_h + job.window_h, work, job.estimate])
        self.open.sort()
        self.running += sum(ready <= hour for ready in self._ready_h)
        self._ready_h = [ready for ready in self._ready_h if ready > hour]
        self._scale(hour, START + timedelta(hours=hour))
        there = self.running + len(self._ready_h)
        self.paid_s += STEP_S * there
        self.most = max(self.most, there)
        self._work(hour)

    def _work(self, hour: float) -> None:
        power = self.running * RATE * STEP_S
        for job in self.open:
            done = min(power, job[1])
            job[1] -= done
            power -= done
        self.late += sum(hour > deadline for deadline, left, _ in self.open if left <= 0)
        self.open = [job for job in self.open if job[1] > 0]

    def _scale(self, hour: float, now: datetime) -> None:
        there = self.running + len(self._ready_h)
        load = ModelLoad(
            due=[
                (START + timedelta(hours=end_h), left * known) for end_h, left, known in self.open
            ],
            in_flight=bool(self.open and self.running),
            present=there,
            rate=RATE,
            cold_start_s=COLD_S,
            replicas_max=REPLICAS_MAX,
        )
        raw = self._policy(load, now)
        damped_to = damped(raw, self._held, there, now, COLD_S)
        self._held = held_after(damped_to, raw, self._held, now, COLD_S)
        need = ReplicaNeed(
            replicas=damped_to.replicas,
            needed=raw.replicas,
            present=self.running,
            in_flight=load.in_flight,
            hold_s=COLD_S,
        )
        status = ScalerStatus(target=there, running=self.running)
        number = next_ask(need, status, Bounds(0, REPLICAS_MAX), self._changed_at, now)
        if number is not None:
            self._changed_at = now
            self._set(number, hour)

    def _set(self, number: int, hour: float) -> None:
        for _ in range(number - self.running - len(self._ready_h)):
            self._ready_h.append(hour + COLD_S / HOUR)
            self.starts += 1
        while self.running + len(self._ready_h) > number:
            if self._ready_h:
                self._ready_h.pop()
            else:
                self.running -= 1


def least_hours(jobs: Sequence[PoolJob]) -> float:
    """Hours of replicas below which no one stays who knows the whole week: the work, and a start
    for each group of batches whose windows meet. Between two groups a replica would wait for longer
    than a start takes, or be started anew.
    """
    starts, end_h = 0, float("-inf")
    for job in sorted(jobs):
        starts += job.created_h > end_h + COLD_S / HOUR
        end_h = max(end_h, job.created_h + job.window_h)
    return sum(job.busy_h for job in jobs) + starts * COLD_S / HOUR
