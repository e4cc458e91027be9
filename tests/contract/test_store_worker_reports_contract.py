"""The contract of `ports.worker_reports.WorkerReportStore`."""

import asyncio
from datetime import timedelta

import pytest

from lowtide.core.reporting.worker_report import BatchReport, ReplicaReport, WorkerReport
from lowtide.ports.store import Store
from lowtide.ports.worker_reports import WorkerReportStore
from lowtide.store.sql_store import SqlStore
from testkit.store_fixture import NOON

LONG_AGO = NOON - timedelta(days=1)


def report(worker_id: str, seconds: float = 0.0, condition: str = "ready") -> WorkerReport:
    seen_at = NOON + timedelta(seconds=seconds)
    replica = ReplicaReport(
        name="gpu-1:8000",
        models=("m", "Größe/☂"),
        condition=condition,
        reason="http://gpu-1:8000/v1: said \x00 nothing",
        public_reason="nothing",
        remedy="Start it.",
        since=NOON + timedelta(microseconds=1),
        is_owned=False,
    )
    return WorkerReport(
        worker_id=worker_id,
        seen_at=seen_at,
        ttl_s=30.0,
        replicas=(replica,),
        results_error="disk full",
        validation_error="bucket away",
        validating="batch_1",
        validating_since=NOON,
        batches=(BatchReport(id="batch_2", moved_at=NOON, failures=3, last_failure="boom"),),
        more_batches=True,
    )


@pytest.fixture
def reports(store: Store) -> WorkerReportStore:
    return store.worker_reports


async def test_a_report_comes_back_as_it_was_written(reports: WorkerReportStore) -> None:
    assert await reports.all() == []
    await reports.write(report("w1"), forget_before=LONG_AGO)
    assert await reports.all() == [report("w1")]
    (replica,) = (await reports.all())[0].replicas
    assert replica.since is not None
    assert replica.since.utcoffset() == timedelta(0)


async def test_a_later_report_replaces_the_worker_s_own_alone(reports: WorkerReportStore) -> None:
    await reports.write(report("w2"), forget_before=LONG_AGO)
    await reports.write(report("w1"), forget_before=LONG_AGO)
    await reports.write(report("w2", 9, "unreachable"), forget_before=LONG_AGO)
    assert await reports.all() == [report("w1"), report("w2", 9, "unreachable")]


async def test_a_worker_that_stops_leaves_nothing(reports: WorkerReportStore) -> None:
    await reports.write(report("w1"), forget_before=LONG_AGO)
    await reports.write(report("w2"), forget_before=LONG_AGO)
    await reports.remove("w1")
    await reports.remove("w1")
    assert await reports.all() == [report("w2")]


async def test_the_dead_are_forgotten_after_a_time_and_the_living_never(
    reports: WorkerReportStore,
) -> None:
    await reports.write(report("dead", -100), forget_before=LONG_AGO)
    await reports.write(report("slow", -50), forget_before=LONG_AGO)
    await reports.write(report("w1", -200), forget_before=NOON - timedelta(seconds=60))
    assert [each.worker_id for each in await reports.all()] == ["slow", "w1"]


async def test_many_workers_write_at_once(store_url: str, reports: WorkerReportStore) -> None:
    other = SqlStore(store_url)
    await reports.write(report("dead", -100), forget_before=LONG_AGO)
    try:
        await asyncio.gather(
            *(
                place.write(report(f"w{number}", turn), forget_before=NOON)
                for turn in range(3)
                for number, place in enumerate((reports, other.worker_reports) * 2)
            )
        )
    finally:
        await other.aclose()
    assert [each.worker_id for each in await reports.all()] == ["w0", "w1", "w2", "w3"]
