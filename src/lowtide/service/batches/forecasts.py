"""What can be foreseen: when batches will be done, and which completion windows can be kept.

Called by service/batches/batches.py, for a batch that is about to be created, and by progress.py
for those that run, out of the process's reading of the backlog. Invariant: nothing is foreseen of a
pool of which nothing is known, or of a file whose lines could not be read.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from lowtide import limits
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.plan import ModelTotals, Plan
from lowtide.core.files.file import File
from lowtide.core.reporting.progress import Prospect
from lowtide.core.scheduling.fair_queue import OUTPUT_COST, planned_output
from lowtide.core.scheduling.feasibility import (
    UNKNOWN,
    Backlog,
    Due,
    Feasibility,
    Kept,
    assess_window,
    combine,
    work_until_done,
)
from lowtide.core.scheduling.forecast import CapacityForecast, HourOfWeek, capacity_forecast
from lowtide.core.scheduling.operating_hours import OperatingHours
from lowtide.core.validation.planner import Planner
from lowtide.ports.blobs import BlobNotFound, Blobs
from lowtide.ports.capacity import Capacity
from lowtide.service.batches.plan_file import feed
from lowtide.service.scheduling.backlog_reading import BacklogReading, BacklogReadings

HoursOf = Mapping[str, OperatingHours]
"""When replicas take batch work, by model; a model that is missing is always open."""


class _Pool:
    """The forecast of one model."""

    def __init__(
        self,
        now: datetime,
        capacity: Capacity,
        model: str,
        backlog: Sequence[Backlog],
        hours: HoursOf,
    ) -> None:
        known = (now, capacity.paces.get(model), capacity.cells.get(model, {}))
        self.usual = capacity_forecast(*known, "p50", hours.get(model))
        self.safe = capacity_forecast(*known, "p20", hours.get(model))
        self.due = Due(backlog if self.usual is not None else ())
        self._until_done = work_until_done(backlog) if self.usual is not None else {}

    def end_s(self, batch_id: str) -> float | None:
        """Seconds until the batch is done at the usual pace; None: not foreseeable."""
        return self._end_by(self.usual, batch_id)

    def safe_end_s(self, batch_id: str) -> float | None:
        """The same by the cautious forecast."""
        return self._end_by(self.safe, batch_id)

    def _end_by(self, forecast: CapacityForecast | None, batch_id: str) -> float | None:
        work = self._until_done.get(batch_id)
        return None if forecast is None or work is None else forecast.seconds_for(work)


class _View:
    """All pools at one moment; each is worked out when it is first asked for."""

    def __init__(self, reading: BacklogReading, hours: HoursOf) -> None:
        self.reading = reading
        self.at = reading.at
        self.capacity = reading.capacity
        self.parts: dict[str, list[Backlog]] = {}
        for part in reading.capacity.backlog:
            self.parts.setdefault(part.batch_id, []).append(part)
        self.backlog = reading.by_model
        self._hours = hours
        self._pools: dict[str, _Pool] = {}

    def pool(self, model: str) -> _Pool:
        if model not in self._pools:
            backlog = self.backlog.get(model, [])
            self._pools[model] = _Pool(self.at, self.capacity, model, backlog, self._hours)
        return self._pools[model]


class Course(msgspec.Struct, frozen=True):
    """What a batch in progress has left of one model, in work units; `end_at` None: not
    foreseeable."""

    batch_id: str
    work_left: float
    is_paused: bool
    deadline_at: datetime
    end_at: datetime | None
    kept: Kept


class PoolForecast(msgspec.Struct, frozen=True):
    """The pool of one model. `rate` in work units a second, of this hour; None: unknown."""

    model: str
    rate: float | None
    cells: Mapping[int, HourOfWeek]
    courses: Sequence[Course]


class Forecasts:
    """Looks ahead for one process."""

    def __init__(
        self,
        readings: BacklogReadings,
        blobs: Blobs,
        catalogue: Catalogue,
        planner: Planner,
    ) -> None:
        self._readings = readings
        self._blobs = blobs
        self._catalogue = catalogue
        self._planner = planner
        self._view: _View | None = None

    async def of(self, batches: Iterable[Batch]) -> dict[str, Prospect]:
        """The prospects, by id, of those batches that are in progress."""
        running = [batch.id for batch in batches if batch.status == "in_progress"]
        if not running:
            return {}
        view = await self._read_view()
        return {batch_id: _prospect(view.parts.get(batch_id, ()), view) for batch_id in running}

    async def for_file(
        self, file: File, endpoint: str, window_s: int, model_override: str | None = None
    ) -> Feasibility:
        """Whether a batch over that file could keep its window, were it created now.

        The models and costs of the file are those of its first `FORESIGHT_LINES`: what follows
        validation is exact. Unknown where these have an error.
        """
        view = await self._read_view()
        if not view.capacity.paces and not view.capacity.cells:
            return UNKNOWN
        plan = await self._sample(file, endpoint, model_override)
        if plan is None:
            return UNKNOWN
        scale = file.bytes / sum(chunk.input_bytes + chunk.count for chunk in plan.chunks)
        deadline_at = view.at + timedelta(seconds=window_s)
        return combine(_verdicts(plan.models, endpoint, deadline_at, view, max(1.0, scale)))

    async def of_plan(
        self, models: Mapping[str, ModelTotals], endpoint: str, deadline_at: datetime
    ) -> Feasibility:
        """Whether that work could be done in time, were it planned now."""
        view = await self._read_view()
        if not view.capacity.paces and not view.capacity.cells:
            return UNKNOWN
        return combine(_verdicts(models, endpoint, deadline_at, view))

    async def all(self) -> tuple[datetime, list[PoolForecast]]:
        """What is known of every pool, and the instant of that."""
        view = await self._read_view()
        known = view.capacity
        models = view.backlog.keys() | known.cells.keys() | known.paces.keys()
        return view.at, [_forecast(model, view) for model in sorted(models)]

    async def _sample(self, file: File, endpoint: str, model_override: str | None) -> Plan | None:
        """The plan of the first lines."""
        size = min(file.bytes, limits.FORESIGHT_BYTES)
        try:
            head = await self._blobs.read(file.blob_key, 0, size)
        except BlobNotFound:
            return None
        if size < file.bytes:
            head = head[: head.rfind(b"\n") + 1]
        *lines, more = head.split(b"\n", limits.FORESIGHT_LINES)
        if len(lines) == limits.FORESIGHT_LINES:
            head = head[: len(head) - len(more)]
        validator = self._planner.begin(endpoint, file.dialect, model_override=model_override)
        await feed(validator, head, file.project_id)
        validated = validator.finish()
        return validated if isinstance(validated, Plan) else None

    async def _read_view(self) -> _View:
        reading = await self._readings.latest()
        if self._view is None or self._view.reading is not reading:
            self._view = _View(reading, self._catalogue.hours)
        return self._view


def _forecast(model: str, view: _View) -> PoolForecast:
    """The pool's forecast, with the batches that are due first, first."""
    pool = view.pool(model)
    parts = sorted(view.backlog.get(model, ()), key=lambda part: (part.deadline_at, part.batch_id))
    courses = []
    for part in parts:
        end_s = pool.end_s(part.batch_id)
        verdict = _judged(model, part.cost_left, part.deadline_at, view, counted=True)
        end_at = view.at + timedelta(seconds=end_s) if end_s is not None else None
        courses.append(
            Course(
                part.batch_id, part.cost_left, part.paused, part.deadline_at, end_at, verdict.kept
            )
        )
    rate = pool.usual.rate if pool.usual is not None else None
    return PoolForecast(model, rate, view.capacity.cells.get(model, {}), courses)


def _prospect(parts: Iterable[Backlog], view: _View) -> Prospect:
    """The prospect of a batch, which is done when the last of its models is."""
    ends: list[float | None] = []
    safe_ends: list[float | None] = []
    verdicts = []
    for part in parts:
        pool = view.pool(part.model)
        ends.append(pool.end_s(part.batch_id))
        safe_ends.append(pool.safe_end_s(part.batch_id))
        verdicts.append(_judged(part.model, part.cost_left, part.deadline_at, view, counted=True))
    return Prospect(_last(ends), _last(safe_ends), combine(verdicts))


def _last(ends: Sequence[float | None]) -> float | None:
    """The latest of the ends; None where there is none or one is not foreseeable."""
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def _verdicts(
    models: Mapping[str, ModelTotals],
    endpoint: str,
    deadline_at: datetime,
    view: _View,
    scale: float = 1.0,
) -> list[Feasibility]:
    """The verdicts on each model's share of new work, which is `scale` times as
    large as planned.
    """
    verdicts = []
    for model, share in models.items():
        pace = view.capacity.paces.get(model)
        learnt = pace.output_per_request if pace is not None else None
        output = planned_output(share, learnt, endpoint)
        cost = share.input_tokens + OUTPUT_COST * output * share.requests
        verdicts.append(_judged(model, cost * scale, deadline_at, view, counted=False))
    return verdicts


def _judged(
    model: str, cost: float, deadline_at: datetime, view: _View, *, counted: bool
) -> Feasibility:
    pool = view.pool(model)
    return assess_window(
        cost, deadline_at, view.at, pool.due, pool.usual, pool.safe, counted=counted
    )
