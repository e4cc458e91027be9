"""loops/dispatch/commit.py: the commit, and that no outcome leaves memory too early."""

import asyncio

import pytest
from worker_env import WorkerEnv, many_bytes

from lowtide import limits
from lowtide.core.faults.outcome import Reply
from lowtide.ports.blobs import BlobsFull
from lowtide.ports.store import StoreUnavailable
from testkit.fake_engine import ANSWER

FULL = BlobsFull("no space left")
GONE = StoreUnavailable("connection lost")


async def test_a_beat_without_anything_to_say_touches_neither_store_nor_blobs(
    env: WorkerEnv,
) -> None:
    await env.beat()
    assert not env.work.calls and not env.blobs.calls


async def test_a_beat_stores_one_segment_and_counts_what_is_in_it(env: WorkerEnv) -> None:
    batch = await env.batch(10)
    env.engine.script.extend([Reply(400, b'{"error":{"message":"no"}}')] * 3)
    await env.dispatch()
    await env.flights_ended()
    await env.beat()
    seen = await env.see(batch)
    assert (seen.counts.completed, seen.counts.failed, seen.status) == (7, 3, "finalizing")
    assert seen.usage.input_tokens == 7 * 3
    assert env.blobs.calls["put"] == env.work.calls["commit_group"] == 1
    assert env.woken["settled"] == 1
    assert env.dispatcher.held() == ()


@pytest.mark.parametrize("after", [False, True], ids=["not stored", "stored all the same"])
async def test_a_segment_that_could_not_be_stored_is_stored_by_the_next_beat(
    env: WorkerEnv, after: bool
) -> None:
    batch = await env.batch(10)
    await env.dispatch()
    await env.flights_ended()
    env.blobs.fail("put", FULL, times=3, after=after)
    for _ in range(1 if after else 3):
        with pytest.raises(BlobsFull):
            await env.beat()
        assert env.committer.error == "no space left"
        assert env.committer.uncommitted_bytes > 0
    env.blobs.heal()
    await env.beat()
    assert env.committer.error is None
    assert env.committer.uncommitted_bytes == 0
    assert sorted(await env.committed_lines(batch)) == list(range(1, 11))
    assert (await env.see(batch)).counts.completed == 10


@pytest.mark.parametrize("after", [False, True], ids=["not committed", "committed all the same"])
async def test_a_commit_of_unknown_result_is_repeated_and_counts_once(
    env: WorkerEnv, after: bool
) -> None:
    batch = await env.batch(10)
    await env.dispatch()
    await env.flights_ended()
    env.work.fail("commit_group", GONE, after=after)
    with pytest.raises(StoreUnavailable):
        await env.beat()
    await env.beat()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 11))
    seen = await env.see(batch)
    assert (seen.counts.completed, seen.usage.input_tokens) == (10, 30)
    assert env.dispatcher.held() == ()


async def test_what_finishes_while_a_beat_fails_goes_with_the_one_after(env: WorkerEnv) -> None:
    batch = await env.batch(8)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    env.engine.let_go()
    await env.engine.saw(lambda: len(env.engine.calls) == 8)
    env.work.fail("commit_group", GONE, after=True)
    with pytest.raises(StoreUnavailable):
        await env.beat()
    env.engine.let_go()
    await env.flights_ended()
    await env.beat()
    assert (await env.see(batch)).counts.completed == 4
    await env.beat()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 9))
    assert (await env.see(batch)).status == "finalizing"


async def test_a_lease_is_kept_while_its_outcomes_cannot_be_stored(env: WorkerEnv) -> None:
    batch = await env.batch(10)
    await env.dispatch()
    await env.flights_ended()
    env.blobs.fail("put", FULL, times=100)
    for _ in range(12):
        env.clock.advance(limits.LOOP_BACKOFF_S_MAX)  # twice the lease's length in the end
        with pytest.raises(BlobsFull):
            await env.beat()
        assert await env.store.work.reap(env.clock.now()) == 0
    env.blobs.heal()
    await env.beat()
    assert sorted(await env.committed_lines(batch)) == list(range(1, 11))
    assert len(env.engine.calls) == 10, "every request ran once"


async def test_a_failed_beat_still_hears_that_a_batch_was_cancelled(env: WorkerEnv) -> None:
    batch = await env.batch(10)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    env.engine.waiting[0].answered.set_result(ANSWER)
    await env.engine.saw(lambda: len(env.engine.calls) == 5)
    await env.store.batches.cancel(batch.project_id, batch.id, env.clock.now())
    env.blobs.fail("put", FULL)
    with pytest.raises(BlobsFull):
        await env.beat()
    await env.flights_ended()
    assert len(env.engine.cancelled) == 4
    assert env.dispatcher.held() == ()
    await env.beat()
    await env.beat()
    assert await env.committed_lines(batch) == [1]
    assert await env.store.lifecycle.claim_assembly("a", env.clock.now(), 30.0) is not None


async def test_a_chunk_is_not_released_before_its_outcomes_are_counted(env: WorkerEnv) -> None:
    """An outcome that came after a failed commit's segment must not be overtaken by the release."""
    batch = await env.batch(10)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    env.engine.let_go()
    await env.engine.saw(lambda: len(env.engine.calls) == 8)
    env.work.fail("commit_group", GONE)
    with pytest.raises(StoreUnavailable):
        await env.beat()
    env.engine.let_go()
    await env.engine.saw(lambda: len(env.engine.calls) == 10)
    await env.dispatcher.drain(0.0)
    await env.committer.finish(env.clock.now())
    assert sorted(await env.committed_lines(batch)) == list(range(1, 9))


async def test_the_last_beats_give_up_what_cannot_be_stored_and_say_so(env: WorkerEnv) -> None:
    batch = await env.batch(10)
    await env.dispatch()
    await env.flights_ended()
    env.blobs.fail("put", FULL)
    await env.dispatcher.drain(0.0)
    await env.committer.finish(env.clock.now())
    assert await env.committed_lines(batch) == []
    assert env.committer.uncommitted_bytes > 0


async def test_a_segment_of_full_size_is_not_left_to_wait_for_the_beat(env: WorkerEnv) -> None:
    await env.batch(2)
    env.engine.otherwise = Reply(200, many_bytes(0.6))
    await env.dispatch()
    await env.flights_ended()
    assert env.woken["commit"] >= 1


async def test_a_small_outcome_waits_for_the_beat(env: WorkerEnv) -> None:
    await env.batch(200)
    env.engine.holds = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 4)
    env.engine.let_go()
    await env.engine.saw(lambda: len(env.engine.calls) == 8)
    assert env.woken["commit"] == 0
    await env.dispatcher.drain(0.0)


async def test_two_beats_never_run_at_once(env: WorkerEnv) -> None:
    batch = await env.batch(10)
    await env.dispatch()
    await env.flights_ended()
    await asyncio.gather(env.beat(), env.beat(), env.beat())
    assert sorted(await env.committed_lines(batch)) == list(range(1, 11))
    assert env.blobs.calls["put"] == 1
