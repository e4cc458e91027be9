"""What a worker does with chunks of a batch that is paused."""

import pytest
from worker_env import WorkerEnv

from lowtide.core.batches.batch import InFlight


async def hold(env: WorkerEnv, batch_id: str, in_flight: InFlight) -> None:
    now = env.clock.now()
    held = await env.store.steering.hold(None, batch_id, "operator", in_flight, now)
    assert held is not None
    assert held.holds == ("operator",)


async def test_calls_under_way_go_on_to_their_end_and_no_further_one_begins(env: WorkerEnv) -> None:
    batch = await env.batch(200)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    await hold(env, batch.id, "finish")
    await env.beat()
    assert not env.engine.cancelled
    assert env.dispatcher.held(), "a chunk with calls under way is kept"
    env.engine.let_go()
    await env.flights_ended()
    assert len(env.engine.calls) == 4
    await env.beat()
    await env.beat()
    assert env.dispatcher.held() == ()
    assert len(await env.committed_lines(batch)) == 4
    assert await env.store.work.claim_chunks("w2", ["m"], 9, env.clock.now(), 30.0) == []


async def test_with_abort_calls_under_way_are_cut(env: WorkerEnv) -> None:
    batch = await env.batch(200)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    await hold(env, batch.id, "abort")
    await env.beat()
    await env.flights_ended()
    assert len(env.engine.cancelled) == 4
    assert env.dispatcher.held() == ()


@pytest.mark.parametrize("in_flight", ["finish", "abort"])
async def test_a_resumed_batch_runs_what_is_left_and_each_result_stands_once(
    env: WorkerEnv, in_flight: InFlight
) -> None:
    batch = await env.batch(20)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    await hold(env, batch.id, in_flight)
    await env.beat()
    env.engine.holds = False
    env.engine.let_go()
    await env.flights_ended()
    await env.beat()
    await env.beat()
    await env.store.steering.lift(None, batch.id, "operator", env.clock.now())
    await env.work_off()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 21))
    assert len(env.engine.calls) == (20 if in_flight == "finish" else 24)
