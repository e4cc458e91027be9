"""How many replicas are wanted, out of what the store and the workers say."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from lowtide import limits
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.reporting.standing import Asleep
from lowtide.core.reporting.worker_report import (
    ReplicaLoad,
    ReplicaReport,
    ScalerReport,
    WorkerReport,
)
from lowtide.core.scheduling.feasibility import Backlog
from lowtide.core.scheduling.forecast import Hour, Throughput
from lowtide.ports.capacity import Capacity, CapacityStore
from lowtide.ports.store import StoreUnavailable
from lowtide.service.scale import ModelScale, ScaleService
from lowtide.service.scheduling.backlog_reading import BacklogReadings
from lowtide.service.standings import Standings
from testkit.manual_clock import ManualClock

RATE = 100.0
COLD_S = 100.0


class Installation:
    """A store with a backlog, and the report of one worker."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.backlog: list[Backlog] = []
        self.pace: Throughput | None = None
        self.is_away = False
        self.replicas: tuple[ReplicaReport, ...] | None = ()
        self.scalers: tuple[ScalerReport, ...] = ()
        standings = Standings(cast(Any, self), self.clock, self._report)
        catalogue = Catalogue([ModelEntry(id="m", aliases=("em",))])
        readings = BacklogReadings(cast(CapacityStore, self), self.clock)
        self.service = ScaleService(
            readings, standings, catalogue, self.clock, replicas_max=8, cold_start_s=COLD_S
        )

    async def capacity(self) -> Capacity:
        if self.is_away:
            raise StoreUnavailable("away")
        return Capacity(self.backlog, {"m": self.pace} if self.pace is not None else {}, {})

    async def all(self) -> Sequence[WorkerReport]:
        return []

    def _report(self) -> WorkerReport | None:
        if self.replicas is None:
            return None
        return WorkerReport(
            worker_id="w", seen_at=self.clock.now(), ttl_s=30.0, replicas=self.replicas,
            scalers=self.scalers,
        )  # fmt: skip

    def has(self, count: int, *, in_flight: int = 0, running: int = 0) -> None:
        """So many replicas are there, each with these calls."""
        load = ReplicaLoad(in_flight=in_flight, window=8, bound="kv", running=running, waiting=0)
        self.replicas = tuple(
            ReplicaReport(name=f"r{n}", models=("m",), load=load) for n in range(count)
        )

    def learned(self) -> None:
        """The pool has done `RATE` work units a second, with the replicas that are there."""
        now = self.clock.now()
        seconds = 10 * limits.PACE_SECONDS_MIN
        self.pace = Throughput(at=now, work=RATE * seconds, seconds=seconds, hour=Hour(now))

    def due(self, hours: float, busy_h: float, **more: Any) -> None:
        now = self.clock.now()
        part = Backlog(
            batch_id=f"b{len(self.backlog)}",
            model="m",
            organization_id="o",
            deadline_at=now + timedelta(hours=hours),
            created_at=now,
            requests=10,
            planned_cost=busy_h * 3600 * RATE,
            **more,
        )
        self.backlog.append(part)

    async def scale(self, seconds: float = limits.BACKLOG_AGE_S) -> ModelScale:
        """The model, after so many seconds."""
        self.clock.advance(seconds)
        found = await self.service.of("em")
        assert found is not None
        return found


@pytest.fixture
async def site() -> Installation:
    return Installation()


async def test_a_replica_is_as_fast_as_the_pool_was_for_each_of_them(site: Installation) -> None:
    site.has(4)
    await site.scale()
    site.learned()
    site.due(24, 3)
    found = await site.scale()
    assert found.work_seconds == pytest.approx(4 * 3 * 3600)
    assert (found.present, found.wanted.replicas) == (4, 4), "nothing falls before a start's time"
    assert (await site.scale(COLD_S)).wanted.replicas == 1


async def test_scaled_to_zero_it_wakes_in_time_and_what_starts_counts(site: Installation) -> None:
    site.has(1)
    await site.scale()
    site.learned()
    site.has(0)
    await site.scale()
    await site.scale(COLD_S)
    site.due(1.0, 0.5)
    asleep = await site.scale()
    assert (asleep.wanted.replicas, asleep.wanted.trusted) == (0, True)
    wake_at = asleep.wanted.wake_at
    assert isinstance(wake_at, datetime)
    woken = await site.scale((wake_at - site.clock.now()).total_seconds() + 1)
    assert woken.wanted.replicas == 1
    assert (await site.scale(COLD_S / 2)).wanted.replicas == 1, "one that starts counts"
    site.has(1)
    assert (await site.scale(COLD_S / 2)).wanted.replicas == 1


async def test_paused_batches_are_no_backlog_and_others_are(site: Installation) -> None:
    site.has(1)
    await site.scale()
    site.learned()
    site.due(1, 5, paused=True)
    assert (await site.scale()).due == ()
    site.due(1, 5)
    found = await site.scale()
    assert [requests for _, requests, _ in found.due] == [10]
    assert found.wanted.replicas > 1


async def test_calls_in_flight_keep_replicas(site: Installation) -> None:
    site.has(3, in_flight=2, running=2)
    await site.scale()
    assert (await site.scale(COLD_S)).wanted.replicas == 1
    site.has(3, in_flight=2, running=5)  # three of each are others'
    found = await site.scale(COLD_S)
    assert (found.wanted.replicas, found.in_flight) == (3, 15)


async def test_replicas_that_cannot_be_reached_are_not_present(site: Installation) -> None:
    site.replicas = (
        ReplicaReport(name="up", models=("m",)),
        ReplicaReport(name="away", models=("m",), condition="unreachable"),
        ReplicaReport(name="part", models=("m",), endpoints=("/v1/embeddings",)),
        ReplicaReport(name="other", models=("n",)),
    )
    assert (await site.scale()).present == 1


async def test_while_no_worker_reports_no_number_falls(site: Installation) -> None:
    site.has(3)
    site.due(1, 9)
    before = await site.scale()
    site.replicas = None
    site.backlog.clear()
    found = await site.scale(999)
    assert not found.wanted.trusted
    assert found.wanted.replicas == before.wanted.replicas


async def test_a_store_that_is_away_is_an_error_and_no_number(site: Installation) -> None:
    site.has(1)
    await site.scale()
    site.is_away = True
    site.clock.advance(limits.BACKLOG_AGE_S)
    with pytest.raises(StoreUnavailable):
        await site.service.all()


async def test_a_model_that_is_not_known_is_none(site: Installation) -> None:
    assert await site.service.of("nobody's") is None
    known = await site.service.of("m")
    assert known is not None
    assert known.wanted.reason == "no work"


async def test_what_is_held_up_is_told_beside_what_is_needed_now(site: Installation) -> None:
    site.has(2)
    found = await site.scale()
    assert (found.wanted.replicas, found.need.replicas, found.need.needed) == (2, 2, 0)
    assert found.need.hold_s == COLD_S


async def test_the_replicas_behind_one_address_are_those_that_its_scaler_counts(
    site: Installation,
) -> None:
    site.has(1)
    site.scalers = (ScalerReport(label="ray s", models=("m",), target=4, running=3, hides=True),)
    found = await site.scale()
    assert (found.present, found.scaler) == (3, site.scalers[0])
    site.learned()
    site.due(24, 3)
    assert (await site.scale()).work_seconds == pytest.approx(3 * 3 * 3600)
    site.has(0)
    assert (await site.scale()).present == 0, "nothing answers there"


async def test_a_scaler_that_counts_what_a_source_finds_changes_no_number(
    site: Installation,
) -> None:
    site.has(2)
    site.scalers = (ScalerReport(label="k", models=("m", "n"), target=4, running=4),)
    assert (await site.scale()).present == 2
    assert set(await site.service.all()) == {"m", "n"}, "a model that only a scaler names is known"


async def test_a_model_at_zero_tells_its_wake_where_replicas_come_and_go(
    site: Installation,
) -> None:
    site.has(1)
    await site.scale()
    site.learned()
    site.has(0)
    await site.scale(COLD_S)
    site.due(10.0, 0.5)
    found = await site.scale(COLD_S)
    assert found.wanted.replicas == 0
    assert await site.service.asleep() == {}, "an engine that was named is missing, not asleep"
    site.scalers = (ScalerReport(label="k", models=("m",), error="it answers 403"),)
    found = await site.scale()
    assert await site.service.asleep() == {"m": Asleep(found.wanted.wake_at, "it answers 403")}
    assert found.wanted.wake_at is not None
    woken = await site.scale((found.wanted.wake_at - site.clock.now()).total_seconds() + 1)
    assert woken.needed == 1
    assert await site.service.asleep() == {"m": Asleep(None, "it answers 403")}
    site.is_away = True
    site.clock.advance(60)
    assert await site.service.asleep() == {}
