"""Chunks that no replica of a worker can go on with are left to other workers."""

from typing import Any

import pytest
from worker_env import CHAT, EMBEDDINGS, MODEL, WorkBench, upstream

from lowtide import limits
from lowtide.core.batches.chunk import ChunkLease
from lowtide.core.faults.outcome import NoReply, Reply
from testkit.fake_engine import ANSWER, FakeEngine

REFUSED = Reply(401, b'{"error":{"message":"wrong key"}}')
AWAY = NoReply("connect", "refused")
NO_ENDPOINT = Reply(404, b'{"error":{"message":"no such route"}}')


async def another_worker_gets(bench: WorkBench) -> list[ChunkLease]:
    return await bench.store.work.claim_chunks("x", [MODEL], 9, bench.clock.now(), 30.0)


@pytest.mark.parametrize("trouble", [REFUSED, AWAY])
async def test_lines_for_an_engine_in_trouble_are_left_to_other_workers(
    bench: WorkBench, trouble: Reply | NoReply
) -> None:
    await bench.batch(300)
    bench.engine.otherwise = trouble
    await bench.pass_time(2.0)
    assert len(bench.dispatcher.held()) >= 2
    assert not bench.replica.is_well
    await bench.pass_time(2 * limits.CHUNK_KEEP_S)
    assert bench.dispatcher.held() == ()
    await bench.pass_time(60.0)
    assert bench.dispatcher.held() == (), "and nothing is leased for it again"
    leases = await another_worker_gets(bench)
    assert sum(lease.count for lease in leases) == 300
    assert not any(lease.done.strip(b"\0") for lease in leases), "none was burnt"


@pytest.mark.parametrize("trouble", [REFUSED, AWAY])
async def test_an_engine_that_works_again_is_found_without_any_lines(
    bench: WorkBench, trouble: Reply | NoReply
) -> None:
    batch = await bench.batch(5)
    bench.engine.otherwise = trouble
    await bench.pass_time(30.0)
    assert bench.dispatcher.held() == ()
    bench.engine.otherwise = ANSWER
    await bench.pass_time(limits.TRIAL_PAUSE_S_MAX)
    assert (await bench.see(batch)).counts.completed == 5


async def test_a_hiccup_moves_no_lines(bench: WorkBench) -> None:
    batch = await bench.batch(5)
    bench.engine.otherwise = AWAY
    await bench.pass_time(limits.CHUNK_KEEP_S - 1.0)
    assert bench.replica.circuit.state != "closed"
    assert [token for _, token in bench.dispatcher.held()] == [1]
    bench.engine.otherwise = ANSWER
    await bench.pass_time(limits.CIRCUIT_COOLDOWN_S_MAX + 1.0)
    assert (await bench.see(batch)).counts.completed == 5


async def test_nobody_waits_behind_lines_for_an_endpoint_that_the_engine_lacks(
    bench: WorkBench,
) -> None:
    """More of them than are ever leased ahead."""
    engine = OnlyChat()
    only = upstream(engine)
    bench.start([only])
    shut = await bench.batch(1500, EMBEDDINGS)
    await bench.pass_time(10.0)
    assert only.replica.scope((MODEL, EMBEDDINGS)).held == "path"
    chat = await bench.batch(300)
    bench.dispatcher.announce()
    await bench.pass_time(20.0)
    assert (await bench.see(chat)).counts.completed == 300
    assert (await bench.see(shut)).counts.settled == 0


async def test_a_replica_of_this_worker_that_is_well_keeps_the_lines_here(bench: WorkBench) -> None:
    well = upstream(FakeEngine(url="http://well/v1"))
    well.replica.window_max = 1
    bench.start([bench.upstream, well])
    bench.engine.otherwise = AWAY
    batch = await bench.batch(20)
    await bench.pass_time(15.0)
    assert (await bench.see(batch)).counts.completed == 20


async def test_lines_that_an_engine_may_have_died_of_stay(bench: WorkBench) -> None:
    """Elsewhere nobody would know, and the next engine would die of them."""
    await bench.batch(1)
    bench.engine.script.append(NoReply("broken", "the connection ended before the answer"))
    bench.engine.otherwise = AWAY
    await bench.pass_time(10 * limits.CHUNK_KEEP_S)
    assert bench.replica.circuit.state != "closed"
    assert len(bench.dispatcher.held()) == 1
    bench.clock.advance(limits.CHUNK_KEEP_CUT_S)
    await bench.pass_time(2.0)
    assert bench.dispatcher.held() == (), "it does not come back"


class OnlyChat(FakeEngine):
    """Offers no embeddings."""

    async def post(self, path: str, *rest: Any) -> Any:
        self.otherwise = ANSWER if path == CHAT.removeprefix("/v1") else NO_ENDPOINT
        return await super().post(path, *rest)
