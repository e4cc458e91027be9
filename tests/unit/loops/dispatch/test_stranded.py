"""Chunks that no replica of a worker can go on with are left to other workers."""

from typing import Any

import pytest
from worker_env import CHAT, EMBEDDINGS, MODEL, WorkerEnv, upstream

from lowtide import limits
from lowtide.core.batches.chunk import ChunkLease
from lowtide.core.faults.outcome import NoReply, Reply
from testkit.fake_engine import ANSWER, FakeEngine

REFUSED = Reply(401, b'{"error":{"message":"wrong key"}}')
AWAY = NoReply("connect", "refused")
NO_ENDPOINT = Reply(404, b'{"error":{"message":"no such route"}}')


async def another_worker_gets(env: WorkerEnv) -> list[ChunkLease]:
    return await env.store.work.claim_chunks("x", [MODEL], 9, env.clock.now(), 30.0)


@pytest.mark.parametrize("failure", [REFUSED, AWAY])
async def test_lines_for_a_failing_engine_are_left_to_other_workers(
    env: WorkerEnv, failure: Reply | NoReply
) -> None:
    await env.batch(300)
    env.engine.otherwise = failure
    await env.pass_time(2.0)
    assert len(env.dispatcher.held()) >= 2
    assert not env.replica.is_well
    await env.pass_time(2 * limits.CHUNK_KEEP_S)
    assert env.dispatcher.held() == ()
    await env.pass_time(60.0)
    assert env.dispatcher.held() == (), "and nothing is leased for it again"
    leases = await another_worker_gets(env)
    assert sum(lease.count for lease in leases) == 300
    assert not any(lease.done.strip(b"\0") for lease in leases), "none was burnt"


@pytest.mark.parametrize("failure", [REFUSED, AWAY])
async def test_an_engine_that_works_again_is_found_without_any_lines(
    env: WorkerEnv, failure: Reply | NoReply
) -> None:
    batch = await env.batch(5)
    env.engine.otherwise = failure
    await env.pass_time(30.0)
    assert env.dispatcher.held() == ()
    env.engine.otherwise = ANSWER
    await env.pass_time(limits.TRIAL_PAUSE_S_MAX)
    assert (await env.see(batch)).counts.completed == 5


async def test_a_hiccup_moves_no_lines(env: WorkerEnv) -> None:
    batch = await env.batch(5)
    env.engine.otherwise = AWAY
    await env.pass_time(limits.CHUNK_KEEP_S - 1.0)
    assert env.replica.circuit.state != "closed"
    assert [token for _, token in env.dispatcher.held()] == [1]
    env.engine.otherwise = ANSWER
    await env.pass_time(limits.CIRCUIT_COOLDOWN_S_MAX + 1.0)
    assert (await env.see(batch)).counts.completed == 5


async def test_nobody_waits_behind_lines_for_an_endpoint_that_the_engine_lacks(
    env: WorkerEnv,
) -> None:
    """More of them than are ever leased ahead."""
    engine = OnlyChat()
    only = upstream(engine)
    env.start([only])
    shut = await env.batch(1500, EMBEDDINGS)
    await env.pass_time(10.0)
    assert only.replica.scope((MODEL, EMBEDDINGS)).held == "path"
    chat = await env.batch(300)
    env.dispatcher.announce()
    await env.pass_time(20.0)
    assert (await env.see(chat)).counts.completed == 300
    assert (await env.see(shut)).counts.settled == 0


async def test_a_replica_of_this_worker_that_is_well_keeps_the_lines_here(env: WorkerEnv) -> None:
    well = upstream(FakeEngine(url="http://well/v1"))
    well.replica.window_max = 1
    env.start([env.upstream, well])
    env.engine.otherwise = AWAY
    batch = await env.batch(20)
    await env.pass_time(15.0)
    assert (await env.see(batch)).counts.completed == 20


async def test_lines_that_an_engine_may_have_died_of_stay(env: WorkerEnv) -> None:
    """Elsewhere nobody would know, and the next engine would die of them."""
    await env.batch(1)
    env.engine.script.append(NoReply("broken", "the connection ended before the answer"))
    env.engine.otherwise = AWAY
    await env.pass_time(10 * limits.CHUNK_KEEP_S)
    assert env.replica.circuit.state != "closed"
    assert len(env.dispatcher.held()) == 1
    env.clock.advance(limits.CHUNK_KEEP_CUT_S)
    await env.pass_time(2.0)
    assert env.dispatcher.held() == (), "it does not come back"


class OnlyChat(FakeEngine):
    """Offers no embeddings."""

    async def post(self, path: str, *rest: Any) -> Any:
        self.otherwise = ANSWER if path == CHAT.removeprefix("/v1") else NO_ENDPOINT
        return await super().post(path, *rest)
