"""How many replicas each model needs, for whoever starts and stops them: KEDA, a script, a person.

`GET /v1/admin/scale` and the gauges (loops/scheduling/scale.py) ask; they are told the same for
`limits.STANDING_FRESH_S`. Each process keeps its own history of what it has seen and told;
core/scheduling/wanted_replicas.py decides. Invariant: while the store is away nothing is told,
which KEDA takes for "stay as you are"; while no worker reports, no number falls.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from lowtide import limits
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.replicas.scaler_asks import ReplicaNeed
from lowtide.core.reporting.standing import AWAY, Asleep, by_owner, split
from lowtide.core.reporting.worker_report import ReplicaReport, ScalerReport, WorkerReport
from lowtide.core.scheduling.feasibility import Backlog
from lowtide.core.scheduling.replica_starts import ReplicaStarts
from lowtide.core.scheduling.wanted_replicas import (
    ModelLoad,
    OpenTime,
    Wanted,
    damped,
    held_after,
    wanted_replicas,
)
from lowtide.ports.capacity import Capacity
from lowtide.ports.clock import Clock
from lowtide.ports.store import StoreError
from lowtide.service.scheduling.backlog_reading import BacklogReadings
from lowtide.service.standings import Standings

_NEVER = datetime.min.replace(tzinfo=UTC)

DueWork = tuple[tuple[datetime, int, float], ...]
"""Requests and work units by deadline, to the minute, the earliest first."""


class ModelScale(msgspec.Struct, frozen=True, kw_only=True):
    """What one model needs and has. `needed`: the number before it is held. `work_seconds`: what is
    left for one replica, None while its speed is not known. `hold_s`: how long a lower number
    waits. `scaler`: what starts and stops its replicas, None where Lowtide has none for it.
    `comes_and_goes`: that there is no replica is nothing odd.
    """

    model: str
    wanted: Wanted
    needed: int | None = None
    present: int
    in_flight: int
    work_seconds: float | None
    due: DueWork = ()
    hold_s: float = limits.SCALE_HOLD_S_MIN
    scaler: ScalerReport | None = None
    comes_and_goes: bool = False

    @property
    def need(self) -> ReplicaNeed:
        """What whoever scales it is to do."""
        return ReplicaNeed(
            replicas=self.wanted.replicas,
            needed=self.needed,
            present=self.present,
            in_flight=self.in_flight,
            trusted=self.wanted.trusted,
            learns=self.wanted.learns,
            hold_s=self.hold_s,
            reason=self.wanted.reason,
        )


class ScaleService:
    """One per process."""

    def __init__(
        self,
        readings: BacklogReadings,
        standings: Standings,
        catalogue: Catalogue,
        clock: Clock,
        *,
        replicas_max: int = limits.SCALE_REPLICAS_MAX,
        cold_start_s: float = limits.SCALE_COLD_START_S,
        hold_s: float = limits.SCALE_HOLD_S_MIN,
    ) -> None:
        """`cold_start_s`: what a start takes, until some were seen; `hold_s`: how long a lower
        number waits at least.
        """
        self._readings = readings
        self._standings = standings
        self._catalogue = catalogue
        self._clock = clock
        self._replicas_max = replicas_max
        self._cold_start_s = cold_start_s
        self._hold_s = hold_s
        self._histories: dict[str, ReplicaStarts] = {}
        self._seen: tuple[float, Mapping[str, ModelScale]] | None = None
        self._reading = asyncio.Lock()

    async def all(self) -> Mapping[str, ModelScale]:
        """What each model needs that is known here. Raises StoreError."""
        async with self._reading:
            now_s = self._clock.monotonic()
            if self._seen is None or now_s - self._seen[0] >= limits.STANDING_FRESH_S:
                self._seen = now_s, await self._read()
            return self._seen[1]

    async def of(self, model: str) -> ModelScale | None:
        """What the model needs, by any of its names; None: it is not known. Raises StoreError."""
        return (await self.all()).get(self._catalogue.names.get(model, model))

    async def asleep(self) -> Mapping[str, Asleep]:
        """The models that have work and no replica, where replicas come and go: found by sources
        or started by scalers. Empty while the store is away.
        """
        try:
            scales = await self.all()
        except StoreError:
            return {}
        return {
            model: Asleep(
                None if each.needed else each.wanted.wake_at,
                each.scaler.error if each.scaler is not None else "",
            )
            for model, each in scales.items()
            if each.comes_and_goes and not each.present and (each.needed or each.wanted.wake_at)
        }

    async def _read(self) -> dict[str, ModelScale]:
        reading = await self._readings.latest()
        reports = await self._standings.reports()
        now = self._clock.now()
        live, _ = split(reports, now)
        replicas = _by_model(live)
        waiting = (m for m, parts in reading.by_model.items() if not all(p.paused for p in parts))
        scalers = scalers_by_model(live)
        models = {*self._catalogue.names.values(), *replicas, *waiting, *scalers}
        self._histories = {m: each for m, each in self._histories.items() if m in models}
        scales = {
            model: self._scale(
                model, await _due(reading.by_model.get(model, ())), replicas.get(model, ()),
                reading.capacity, now, is_known=bool(live), scaler=scalers.get(model),
            )
            for model in sorted(models)
        }  # fmt: skip
        if any(report.sources or report.scalers for report in live):
            replace = msgspec.structs.replace
            return {model: replace(each, comes_and_goes=True) for model, each in scales.items()}
        return scales

    def _scale(
        self,
        model: str,
        due: DueWork,
        replicas: Sequence[ReplicaReport],
        capacity: Capacity,
        now: datetime,
        *,
        is_known: bool,
        scaler: ScalerReport | None,
    ) -> ModelScale:
        history = self._histories.get(model, ReplicaStarts())
        present = sum(each.condition not in AWAY for each in replicas)
        if present and scaler is not None and scaler.hides and scaler.running is not None:
            present = scaler.running
        if is_known:
            history = history.seen(present, now)
        cold_start_s = history.cold_start_s(self._cold_start_s)
        pace = capacity.paces.get(model)
        rate = pace.rate if pace is not None else None
        batch, others = _calls(replicas)
        load = ModelLoad(
            due=[(at, work) for at, _, work in due],
            in_flight=batch,
            live=others,
            present=history.expected(now, cold_start_s) if is_known else history.present,
            rate=rate / history.usual if rate and history.usual else None,
            cold_start_s=cold_start_s,
            replicas_max=self._replicas_max,
            is_known=is_known,
        )
        hold_s = max(self._hold_s, cold_start_s)
        raw = wanted_replicas(load, now, OpenTime(now, self._catalogue.hours.get(model)))
        damped_to = damped(raw, history.held, history.present, now, hold_s)
        self._histories[model] = history.reported(
            held_after(damped_to, raw, history.held, now, hold_s), now
        )
        return ModelScale(
            model=model,
            wanted=damped_to,
            needed=raw.replicas,
            present=present,
            in_flight=batch + others,
            work_seconds=load.work / load.rate if load.rate else (None if load.work else 0.0),
            due=due,
            hold_s=hold_s,
            scaler=scaler,
        )


async def _due(backlog: Sequence[Backlog]) -> DueWork:
    """What is left of the backlog, without what is paused. Others are served between its
    pieces."""
    due: dict[datetime, tuple[int, float]] = {}
    for number, part in enumerate(backlog, 1):
        if number % limits.ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)
        if part.paused:
            continue
        at = part.deadline_at.replace(second=0, microsecond=0)
        requests, work = due.get(at, (0, 0.0))
        due[at] = (requests + part.requests - part.settled, work + part.cost_left)
    return tuple((at, *due[at]) for at in sorted(due))


def _by_model(live: Sequence[WorkerReport]) -> dict[str, list[ReplicaReport]]:
    """The replicas by model; of one whose endpoints differ, the part that stands for it whole."""
    by_model: dict[str, list[ReplicaReport]] = {}
    for _, replica in by_owner(live):
        for model in () if replica.endpoints else replica.models:
            by_model.setdefault(model, []).append(replica)
    return by_model


def scalers_by_model(live: Sequence[WorkerReport]) -> dict[str, ScalerReport]:
    """The scaler of each model that has one; of several reports, as while another worker takes it
    over, the one that has read it, and asked last.
    """
    reports = [each for report in live for each in report.scalers]
    reports.sort(key=lambda each: (each.target is not None, each.asked_at or _NEVER))
    return {model: each for each in reports for model in each.models}


def _calls(replicas: Sequence[ReplicaReport]) -> tuple[int, int]:
    """Calls of batches, and those of others as far as engines tell of them."""
    loads = [each.load for each in replicas if each.load is not None]
    batch = sum(load.in_flight for load in loads)
    others = sum(
        max(0, (load.running or 0) + (load.waiting or 0) - load.in_flight) for load in loads
    )
    return batch, others
