"""loops/dispatch/commit.py: the beat, and that no outcome leaves memory too early."""

import asyncio

import pytest
from worker_env import WorkBench, many_bytes

from lowtide import limits
from lowtide.core.faults.outcome import Reply
from lowtide.ports.blobs import BlobsFull
from lowtide.ports.store import StoreUnavailable
from testkit.fake_engine import ANSWER

FULL = BlobsFull("no space left")
GONE = StoreUnavailable("connection lost")


async def test_a_beat_without_anything_to_say_touches_neither_store_nor_blobs(
    bench: WorkBench,
) -> None:
    await bench.beat()
    assert not bench.work.calls and not bench.blobs.calls


async def test_a_beat_stores_one_segment_and_counts_what_is_in_it(bench: WorkBench) -> None:
    batch = await bench.batch(10)
    bench.engine.script.extend([Reply(400, b'{"error":{"message":"no"}}')] * 3)
    await bench.dispatch()
    await bench.flights_ended()
    await bench.beat()
    seen = await bench.see(batch)
    assert (seen.counts.completed, seen.counts.failed, seen.status) == (7, 3, "finalizing")
    assert seen.usage.input_tokens == 7 * 3
    assert bench.blobs.calls["put"] == bench.work.calls["commit_beat"] == 1
    assert bench.woken["settled"] == 1
    assert bench.dispatcher.held() == ()


@pytest.mark.parametrize("after", [False, True], ids=["not stored", "stored all the same"])
async def test_a_segment_that_could_not_be_stored_is_stored_by_the_next_beat(
    bench: WorkBench, after: bool
) -> None:
    batch = await bench.batch(10)
    await bench.dispatch()
    await bench.flights_ended()
    bench.blobs.fail("put", FULL, times=3, after=after)
    for _ in range(1 if after else 3):
        with pytest.raises(BlobsFull):
            await bench.beat()
        assert bench.committer.trouble == "no space left"
        assert bench.committer.uncommitted_bytes > 0
    bench.blobs.heal()
    await bench.beat()
    assert bench.committer.trouble is None
    assert bench.committer.uncommitted_bytes == 0
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 11))
    assert (await bench.see(batch)).counts.completed == 10


@pytest.mark.parametrize("after", [False, True], ids=["not committed", "committed all the same"])
async def test_a_commit_of_unknown_result_is_repeated_and_counts_once(
    bench: WorkBench, after: bool
) -> None:
    batch = await bench.batch(10)
    await bench.dispatch()
    await bench.flights_ended()
    bench.work.fail("commit_beat", GONE, after=after)
    with pytest.raises(StoreUnavailable):
        await bench.beat()
    await bench.beat()
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 11))
    seen = await bench.see(batch)
    assert (seen.counts.completed, seen.usage.input_tokens) == (10, 30)
    assert bench.dispatcher.held() == ()


async def test_what_finishes_while_a_beat_fails_goes_with_the_one_after(bench: WorkBench) -> None:
    batch = await bench.batch(8)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    bench.engine.let_go()
    await bench.engine.saw(lambda: len(bench.engine.calls) == 8)
    bench.work.fail("commit_beat", GONE, after=True)
    with pytest.raises(StoreUnavailable):
        await bench.beat()
    bench.engine.let_go()
    await bench.flights_ended()
    await bench.beat()
    assert (await bench.see(batch)).counts.completed == 4
    await bench.beat()
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 9))
    assert (await bench.see(batch)).status == "finalizing"


async def test_a_lease_is_kept_while_its_outcomes_cannot_be_stored(bench: WorkBench) -> None:
    batch = await bench.batch(10)
    await bench.dispatch()
    await bench.flights_ended()
    bench.blobs.fail("put", FULL, times=100)
    for _ in range(12):
        bench.clock.advance(limits.LOOP_BACKOFF_S_MAX)  # twice the lease's length in the end
        with pytest.raises(BlobsFull):
            await bench.beat()
        assert await bench.store.work.reap(bench.clock.now()) == 0
    bench.blobs.heal()
    await bench.beat()
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 11))
    assert len(bench.engine.calls) == 10, "every request ran once"


async def test_a_failed_beat_still_hears_that_a_batch_was_cancelled(bench: WorkBench) -> None:
    batch = await bench.batch(10)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    bench.engine.waiting[0].answered.set_result(ANSWER)
    await bench.engine.saw(lambda: len(bench.engine.calls) == 5)
    await bench.store.batches.cancel(batch.project_id, batch.id, bench.clock.now())
    bench.blobs.fail("put", FULL)
    with pytest.raises(BlobsFull):
        await bench.beat()
    await bench.flights_ended()
    assert len(bench.engine.cancelled) == 4
    assert bench.dispatcher.held() == ()
    await bench.beat()
    await bench.beat()
    assert await bench.committed_lines(batch) == [1]
    assert await bench.store.lifecycle.claim_assembly("a", bench.clock.now(), 30.0) is not None


async def test_a_chunk_is_not_released_before_its_outcomes_are_counted(bench: WorkBench) -> None:
    """An outcome that came after a failed beat's segment must not be overtaken by the release."""
    batch = await bench.batch(10)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    bench.engine.let_go()
    await bench.engine.saw(lambda: len(bench.engine.calls) == 8)
    bench.work.fail("commit_beat", GONE)
    with pytest.raises(StoreUnavailable):
        await bench.beat()
    bench.engine.let_go()
    await bench.engine.saw(lambda: len(bench.engine.calls) == 10)
    await bench.dispatcher.drain(0.0)
    await bench.committer.finish(bench.clock.now())
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 9))


async def test_the_last_beats_give_up_what_cannot_be_stored_and_say_so(bench: WorkBench) -> None:
    batch = await bench.batch(10)
    await bench.dispatch()
    await bench.flights_ended()
    bench.blobs.fail("put", FULL)
    await bench.dispatcher.drain(0.0)
    await bench.committer.finish(bench.clock.now())
    assert await bench.committed_lines(batch) == []
    assert bench.committer.uncommitted_bytes > 0


async def test_a_segment_of_full_size_is_not_left_to_wait_for_the_beat(bench: WorkBench) -> None:
    await bench.batch(2)
    bench.engine.otherwise = Reply(200, many_bytes(0.6))
    await bench.dispatch()
    await bench.flights_ended()
    assert bench.woken["commit"] >= 1


async def test_a_small_outcome_waits_for_the_beat(bench: WorkBench) -> None:
    await bench.batch(200)
    bench.engine.holds = True
    await bench.dispatch()
    await bench.engine.saw(lambda: len(bench.engine.waiting) == 4)
    bench.engine.let_go()
    await bench.engine.saw(lambda: len(bench.engine.calls) == 8)
    assert bench.woken["commit"] == 0
    await bench.dispatcher.drain(0.0)


async def test_two_beats_never_run_at_once(bench: WorkBench) -> None:
    batch = await bench.batch(10)
    await bench.dispatch()
    await bench.flights_ended()
    await asyncio.gather(bench.beat(), bench.beat(), bench.beat())
    assert sorted(await bench.committed_lines(batch)) == list(range(1, 11))
    assert bench.blobs.calls["put"] == 1
