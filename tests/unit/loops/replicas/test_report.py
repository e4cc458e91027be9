"""What a worker logs and writes of itself, over a real store and a real dispatcher."""

from collections.abc import Sequence
from datetime import datetime

import pytest
import structlog
from worker_env import MODEL, WorkerEnv

from lowtide import limits
from lowtide.core.dispatch.replica import Replica
from lowtide.core.faults.outcome import Reply
from lowtide.core.reporting.batch_watch import BatchWatch
from lowtide.core.reporting.standing import standing_of
from lowtide.core.reporting.tally import Tallies
from lowtide.core.reporting.worker_report import ScalerReport, SourceReport, WorkerReport
from lowtide.loops.replicas.report import ReportLoop
from lowtide.ports.store import StoreUnavailable
from testkit.faults import Faulty

BOOM = Reply(500, b'{"error": {"message": "boom"}}')
BAD = Reply(400, b'{"error": {"message": "no such field"}}')


class Workings:
    """The bench's loops, as the report loop asks for them."""

    def __init__(self, env: WorkerEnv) -> None:
        self._bench = env
        self.validation_error: str | None = None
        self.validating: tuple[str, datetime] | None = None

    @property
    def replicas(self) -> Sequence[Replica]:
        return [self._bench.replica]

    @property
    def scalers(self) -> tuple[ScalerReport, ...]:
        return ()

    @property
    def sources(self) -> tuple[SourceReport, ...]:
        return ()

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
    def results_error(self) -> str | None:
        return self._bench.committer.error


class Fleet:
    def __init__(self, env: WorkerEnv) -> None:
        self.env = env
        self.store = Faulty(env.store.worker_reports, ("write", "remove", "all"))
        self.workings = Workings(env)
        self.loop = ReportLoop("w", self.store, env.clock, self.workings)

    async def tick(self, seconds: float = 1.0) -> None:
        self.env.clock.advance(seconds)
        await self.loop.tick(self.env.clock.now())

    async def written(self) -> WorkerReport:
        (report,) = await self.env.store.worker_reports.all()
        return report


@pytest.fixture
def harness(env: WorkerEnv) -> Fleet:
    return Fleet(env)


async def test_a_worker_that_is_well_writes_once_in_a_while_and_logs_nothing(
    harness: Fleet,
) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(100):
            await harness.tick()
    assert lines == []
    assert harness.store.calls["write"] == 100 / limits.REPORT_S
    report = await harness.written()
    assert [(each.name, each.condition) for each in report.replicas] == [("fake", "ready")]


async def test_a_change_is_written_at_once(harness: Fleet) -> None:
    await harness.tick()
    for second in range(10):
        harness.env.replica.circuit.failed(float(second), "refused")
    await harness.tick()
    assert harness.store.calls["write"] == 2
    (replica,) = (await harness.written()).replicas
    assert replica.condition != "ready"
    assert replica.since == harness.env.clock.now()


async def test_a_store_that_is_away_stops_no_log_line(harness: Fleet) -> None:
    await harness.tick()
    harness.store.fail("write", StoreUnavailable("gone"), times=99)
    for second in range(10):
        harness.env.replica.circuit.failed(float(second), "refused")
    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                await harness.tick()
    assert [line["event"] for line in lines] == ["circuit.opened", "replica.lost"]
    assert {line["replica"] for line in lines} == {"fake"}


async def test_the_requests_of_a_batch_that_fail_by_themselves_are_told_as_its_own(
    harness: Fleet,
) -> None:
    env = harness.env
    batch = await env.batch(3)
    env.engine.script.extend([BOOM] * 3)
    env.dispatcher.announce()
    await env.dispatch()
    await env.flights_ended()
    await harness.tick()
    (reported,) = (await harness.written()).batches
    assert (reported.id, reported.failures, reported.last_failure) == (
        batch.id,
        3,
        "server_error: boom",
    )
    standing = standing_of(await harness.store.all(), env.clock.now())
    assert standing.batches[batch.id].failures == 3


async def test_rejected_lines_are_one_record_and_are_counted_by_replica_and_model(
    harness: Fleet,
) -> None:
    env = harness.env
    batch = await env.batch(40)
    env.engine.otherwise = BAD
    with structlog.testing.capture_logs() as lines:
        await env.work_off()
        await harness.tick()
        await harness.tick()
    rejected = [line for line in lines if line["event"] == "line.rejected"]
    assert [(line["batch"], line["lines"]) for line in rejected] == [(batch.id, 40)]
    assert "no such field" in rejected[0]["last"]
    tally = env.dispatcher.tallies.of("fake", MODEL)
    assert sum(tally.failed.values()) == 40
    assert tally.succeeded == 0


async def test_good_answers_are_counted_with_their_tokens(harness: Fleet) -> None:
    await harness.env.batch(5)
    await harness.env.work_off()
    tally = harness.env.dispatcher.tallies.of("fake", MODEL)
    assert (tally.succeeded, tally.input_tokens, tally.failed) == (5, 15, {})


async def test_errors_and_validation_are_reported(harness: Fleet) -> None:
    harness.workings.validation_error = "bucket away"
    harness.workings.validating = ("batch_9", harness.env.clock.now())
    harness.env.committer.error = "x" * 10_000
    await harness.tick()
    report = await harness.written()
    assert report.validation_error == "bucket away"
    assert report.validating == "batch_9"
    assert len(report.results_error) == limits.REPORT_TEXT_CHARS_MAX


async def test_a_worker_that_leaves_takes_its_report_along(harness: Fleet) -> None:
    await harness.tick()
    await harness.loop.leave()
    assert await harness.store.all() == []
    harness.store.fail("remove", StoreUnavailable("gone"))
    with structlog.testing.capture_logs() as lines:
        await harness.loop.leave()
    assert [line["event"] for line in lines] == ["report.not_removed"]


async def test_an_endpoint_that_is_held_alone_is_told_of_its_own_calls(harness: Fleet) -> None:
    replica = harness.env.replica
    replica.scope((MODEL, "/v1/chat/completions")).succeeded(0.0, 1.0)
    replica.scope((MODEL, "/v1/embeddings")).hold("path", "Not Found", 1.0)
    await harness.tick()
    standing = standing_of([await harness.written()], harness.env.clock.now())
    assert standing.models == {MODEL: None}
    hold = standing.hold_of(MODEL, "/v1/embeddings")
    assert hold is not None
    assert hold.public_reason == "the engine does not offer this endpoint"
