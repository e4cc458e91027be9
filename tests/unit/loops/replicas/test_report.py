"""What a worker logs and writes of itself, over a real store and a real dispatcher."""

from collections.abc import Sequence
from datetime import datetime

import pytest
import structlog
from worker_env import MODEL, WorkBench

from lowtide import limits
from lowtide.core.dispatch.replica import Replica
from lowtide.core.faults.outcome import Reply
from lowtide.core.reporting.batch_watch import BatchWatch
from lowtide.core.reporting.standing import standing_of
from lowtide.core.reporting.tally import Tallies
from lowtide.core.reporting.worker_report import WorkerReport
from lowtide.loops.replicas.report import ReportLoop
from lowtide.ports.store import StoreUnavailable
from testkit.faults import Faulty

BOOM = Reply(500, b'{"error": {"message": "boom"}}')
BAD = Reply(400, b'{"error": {"message": "no such field"}}')


class Workings:
    """The bench's loops, as the report loop asks for them."""

    def __init__(self, bench: WorkBench) -> None:
        self._bench = bench
        self.validation_trouble: str | None = None
        self.validating: tuple[str, datetime] | None = None

    @property
    def replicas(self) -> Sequence[Replica]:
        return [self._bench.replica]

    @property
    def tallies(self) -> Tallies:
        return self._bench.dispatcher.tallies

    @property
    def batch_watch(self) -> BatchWatch:
        return self._bench.dispatcher.batch_watch

    @property
    def leased_batches(self) -> frozenset[str]:
        return self._bench.dispatcher.leased_batches

    @property
    def results_trouble(self) -> str | None:
        return self._bench.committer.trouble


class Yard:
    def __init__(self, bench: WorkBench) -> None:
        self.bench = bench
        self.store = Faulty(bench.store.worker_reports, ("write", "remove", "all"))
        self.workings = Workings(bench)
        self.loop = ReportLoop("w", self.store, bench.clock, self.workings)

    async def tick(self, seconds: float = 1.0) -> None:
        self.bench.clock.advance(seconds)
        await self.loop.tick(self.bench.clock.now())

    async def written(self) -> WorkerReport:
        (report,) = await self.bench.store.worker_reports.all()
        return report


@pytest.fixture
def yard(bench: WorkBench) -> Yard:
    return Yard(bench)


async def test_a_worker_that_is_well_writes_once_in_a_while_and_logs_nothing(yard: Yard) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(100):
            await yard.tick()
    assert lines == []
    assert yard.store.calls["write"] == 100 / limits.REPORT_S
    report = await yard.written()
    assert [(each.name, each.condition) for each in report.replicas] == [("fake", "ready")]


async def test_a_change_is_written_at_once(yard: Yard) -> None:
    await yard.tick()
    for second in range(10):
        yard.bench.replica.circuit.failed(float(second), "refused")
    await yard.tick()
    assert yard.store.calls["write"] == 2
    (replica,) = (await yard.written()).replicas
    assert replica.condition != "ready"
    assert replica.since == yard.bench.clock.now()


async def test_a_store_that_is_away_stops_no_log_line(yard: Yard) -> None:
    await yard.tick()
    yard.store.fail("write", StoreUnavailable("gone"), times=99)
    for second in range(10):
        yard.bench.replica.circuit.failed(float(second), "refused")
    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                await yard.tick()
    assert [line["event"] for line in lines] == ["circuit.opened", "replica.lost"]
    assert {line["replica"] for line in lines} == {"fake"}


async def test_the_requests_of_a_batch_that_fail_by_themselves_are_told_as_its_own(
    yard: Yard,
) -> None:
    bench = yard.bench
    batch = await bench.batch(3)
    bench.engine.script.extend([BOOM] * 3)
    bench.dispatcher.announce()
    await bench.dispatch()
    await bench.flights_ended()
    await yard.tick()
    (told,) = (await yard.written()).batches
    assert (told.id, told.failures, told.last_failure) == (batch.id, 3, "server_error: boom")
    standing = standing_of(await yard.store.all(), bench.clock.now())
    assert standing.batches[batch.id].failures == 3


async def test_rejected_lines_are_one_record_and_are_counted_by_replica_and_model(
    yard: Yard,
) -> None:
    bench = yard.bench
    batch = await bench.batch(40)
    bench.engine.otherwise = BAD
    with structlog.testing.capture_logs() as lines:
        await bench.work_off()
        await yard.tick()
        await yard.tick()
    rejected = [line for line in lines if line["event"] == "line.rejected"]
    assert [(line["batch"], line["lines"]) for line in rejected] == [(batch.id, 40)]
    assert "no such field" in rejected[0]["last"]
    tally = bench.dispatcher.tallies.of("fake", MODEL)
    assert sum(tally.failed.values()) == 40
    assert tally.succeeded == 0


async def test_good_answers_are_counted_with_their_tokens(yard: Yard) -> None:
    await yard.bench.batch(5)
    await yard.bench.work_off()
    tally = yard.bench.dispatcher.tallies.of("fake", MODEL)
    assert (tally.succeeded, tally.input_tokens, tally.failed) == (5, 15, {})


async def test_troubles_and_validation_are_told(yard: Yard) -> None:
    yard.workings.validation_trouble = "bucket away"
    yard.workings.validating = ("batch_9", yard.bench.clock.now())
    yard.bench.committer.trouble = "x" * 10_000
    await yard.tick()
    report = await yard.written()
    assert report.validation_trouble == "bucket away"
    assert report.validating == "batch_9"
    assert len(report.results_trouble) == limits.REPORT_TEXT_CHARS_MAX


async def test_a_worker_that_leaves_takes_its_report_along(yard: Yard) -> None:
    await yard.tick()
    await yard.loop.leave()
    assert await yard.store.all() == []
    yard.store.fail("remove", StoreUnavailable("gone"))
    with structlog.testing.capture_logs() as lines:
        await yard.loop.leave()
    assert [line["event"] for line in lines] == ["report.not_removed"]


async def test_an_endpoint_that_is_held_alone_is_told_of_its_own_calls(yard: Yard) -> None:
    replica = yard.bench.replica
    replica.scope((MODEL, "/v1/chat/completions")).succeeded(0.0, 1.0)
    replica.scope((MODEL, "/v1/embeddings")).hold("path", "Not Found", 1.0)
    await yard.tick()
    standing = standing_of([await yard.written()], yard.bench.clock.now())
    assert standing.models == {MODEL: None}
    hold = standing.hold_of(MODEL, "/v1/embeddings")
    assert hold is not None
    assert hold.public_reason == "the engine does not offer this endpoint"
