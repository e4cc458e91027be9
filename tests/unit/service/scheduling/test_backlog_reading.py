"""One process reads the backlog once, however many of its parts want it."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from skipping_clock import SkippingClock

import lowtide
from lowtide import limits
from lowtide.config import Settings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.batches.batch import Batch
from lowtide.core.reporting.progress import Progress
from lowtide.core.validation.planner import Planner
from lowtide.loops.batches.overview import OverviewLoop
from lowtide.loops.scheduling.backlog import BacklogLoop
from lowtide.loops.scheduling.urgency import UrgencyLoop
from lowtide.ports.blobs import Blobs
from lowtide.ports.capacity import Capacity
from lowtide.ports.store import Store
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.scale import ScaleService
from lowtide.service.scheduling.backlog_reading import BacklogReadings
from lowtide.service.standings import Standings
from testkit.manual_worker import ManualWorker
from testkit.statements import statements

MODEL = "test-model"


class Process:
    """The four parts of a process that want the backlog, as `wiring` builds them."""

    def __init__(self, store: Store, blobs: Blobs, clock: SkippingClock) -> None:
        catalogue = Catalogue([ModelEntry(id=MODEL)])
        self.clock, self.store = clock, store
        self.readings = BacklogReadings(store.capacity, clock)
        self.urgency = UrgencyLoop(self.readings, lambda _: None)
        self.overview = OverviewLoop(
            "w", store.capacity, self.readings, store.worker_reports, clock, self._progress
        )
        planner = Planner(catalogue, lambda: Settings().limits)
        self.forecasts = Forecasts(self.readings, blobs, catalogue, planner)
        standings = Standings(store.worker_reports, clock)
        self.scale = ScaleService(self.readings, standings, catalogue, clock)

    async def _progress(self, batches: Sequence[Batch]) -> Sequence[Progress]:
        await self.forecasts.of(batches)
        return [Progress() for _ in batches]

    async def all_ask(self) -> int:
        """How many statements all four of them cost that read the backlog."""
        now = self.clock.now()
        with statements() as asked:
            await asyncio.gather(
                self.urgency.tick(now),
                self.overview.tick(now),
                self.forecasts.all(),
                self.scale.all(),
            )
        return len([each for each in asked if "FROM batch_models" in each])


@pytest.fixture
async def process(
    store: Store, blobs: Blobs, clock: SkippingClock, worker: ManualWorker
) -> Process:
    await worker.submit(await worker.upload(3), "batch_1")
    await worker.plan()
    return Process(store, blobs, clock)


async def test_four_readers_cost_one_statement(process: Process) -> None:
    assert await process.all_ask() == 1
    _, (pool,) = await process.forecasts.all()
    assert [course.batch_id for course in pool.courses] == ["batch_1"]
    assert [due[1] for due in (await process.scale.all())[MODEL].due] == [3]


async def test_a_reading_is_used_until_it_is_as_old_as_is_stated(process: Process) -> None:
    assert await process.all_ask() == 1
    process.clock.advance(limits.BACKLOG_AGE_S - 0.1)
    assert await process.all_ask() == 0
    process.clock.advance(0.1)
    assert await process.all_ask() == 1


async def test_while_somebody_watches_the_next_reading_is_made_ahead(process: Process) -> None:
    loop = BacklogLoop(process.readings)
    first = await process.readings.latest()
    with statements() as asked:
        await loop.tick(process.clock.now())
        assert not asked, "nobody has asked for it again"
        assert await process.readings.latest() is first
        due = await loop.tick(process.clock.now())
        assert asked
    assert due is not None
    assert (due - process.clock.now()).total_seconds() < limits.BACKLOG_AGE_S
    assert await process.readings.latest() is not first


async def test_nobody_waits_for_a_reading_that_others_make(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, go_on = await process.readings.latest(), asyncio.Event()
    whole = process.store.capacity.capacity

    async def slow() -> Capacity:
        await go_on.wait()
        return await whole()

    monkeypatch.setattr(process.store.capacity, "capacity", slow)
    process.clock.advance(limits.BACKLOG_AGE_S)
    making = asyncio.create_task(process.readings.latest())
    await asyncio.sleep(0)
    assert await process.readings.latest() is first
    process.clock.advance(limits.BACKLOG_AGE_S)
    waiting = asyncio.create_task(process.readings.latest())
    await asyncio.sleep(0)
    assert not waiting.done(), "the first one is too old by now"
    go_on.set()
    assert await making is not first
    assert await waiting is not first


async def test_what_was_marked_urgent_is_in_the_next_reading(process: Process) -> None:
    before = await process.readings.latest()
    assert before.capacity.urgent == {}
    await process.readings.mark_urgent(MODEL, ["batch_1"])
    assert (await process.readings.latest()).capacity.urgent == {MODEL: ["batch_1"]}


def test_nothing_else_of_the_product_reads_the_backlog() -> None:
    """Each process has one `BacklogReadings`, and what reads the store is in its module alone."""
    root = Path(lowtide.__file__).parent
    places: dict[str, list[str]] = {r"\.capacity\(\)": [], r"\bBacklogReadings\(": []}
    for path in root.rglob("*.py"):
        text = path.read_text()
        for call, found in places.items():
            if re.search(call, text):
                found.append(path.relative_to(root).as_posix())
    reads, makes = places.values()
    assert reads == ["service/scheduling/backlog_reading.py"]
    assert makes == ["wiring/parts.py"]
