"""Contract of WorkStore, the commit: exactly once, fenced, and all of it in one step."""

import asyncio

import pytest

from lowtide.core.batches.batch import Counts
from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.execution.records import GroupCommit
from lowtide.core.usage import NO_USAGE, Usage
from testkit.statements import statements
from testkit.store_fixture import PER_ANSWER, TTL_S, StoreFixture, keys, outcomes


def times(count: int) -> Usage:
    return sum([PER_ANSWER] * count, NO_USAGE)


async def test_a_beat_moves_counts_usage_and_slices_together(world: StoreFixture) -> None:
    batch = await world.running(("m", 4), ("m", 3))
    first, second = await world.claim()
    world.pass_time(2)
    pieces = outcomes(first, [2, 0], failed=[0]), outcomes(second, [1])
    receipt = await world.commit(*pieces, segment="segments/s1", held=[first, second])
    assert (receipt.lost, receipt.stopped, receipt.settled) == (set(), set(), set())
    seen = await world.see(batch)
    assert seen.counts == Counts(7, 2, 1)
    assert seen.usage == times(2)
    assert seen.first_settled_at == seen.last_settled_at == world.now
    rows = await world.store.results.slices(batch.id)
    assert [(r.seq, r.chunk_seq, r.completed, r.failed) for r in rows] == [
        (0, 0, 1, 1),
        (1, 1, 1, 0),
    ]
    assert {row.segment_key for row in rows} == {"segments/s1"}
    assert [(row.offset, row.ok_bytes, row.failed_bytes) for row in rows] == [
        (piece.offset, piece.ok_bytes, piece.failed_bytes) for piece in pieces
    ]


async def test_slices_are_numbered_without_gaps_and_sum_what_was_before(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 4), ("m", 4))
    leases = await world.claim()
    for index in range(4):
        await world.commit(*(outcomes(lease, [index], failed=[1]) for lease in leases), held=leases)
    rows = await world.store.results.slices(batch.id)
    assert [row.seq for row in rows] == list(range(8))
    completed = failed = 0
    for row in rows:
        assert (row.completed_before, row.failed_before) == (completed, failed)
        completed += row.completed
        failed += row.failed
    assert (completed, failed) == (6, 2)
    assert await world.store.results.slices(batch.id, after_seq=2, limit=3) == rows[3:6]
    assert await world.store.results.slices("batch_unknown") == []


async def test_one_beat_serves_several_batches_and_models(world: StoreFixture) -> None:
    one = await world.running(("m", 2), ("n", 2))
    two = await world.running(("m", 1))
    leases = await world.claim(models=("m", "n"))
    receipt = await world.commit(*(outcomes(lease) for lease in leases))
    assert receipt.settled == {one.id, two.id}
    assert (await world.see(one)).counts == Counts(4, 4, 0)
    assert (await world.see(two)).counts == Counts(1, 1, 0)


async def test_a_commit_asks_as_often_for_many_batches_as_for_two(world: StoreFixture) -> None:
    asked: list[int] = []
    for count in (1, 5):
        ending = [await world.running(("m", 1)) for _ in range(count)]
        going = [await world.running(("m", 2)) for _ in range(count)]
        leases = await world.claim(limit=2 * count)
        pieces = [outcomes(lease, [0]) for lease in leases]
        with statements() as seen:
            receipt = await world.commit(*pieces, segment=f"segments/s{count}", held=leases)
        asked.append(len(seen))
        assert receipt.settled == {batch.id for batch in ending}
        for batch in ending:
            assert (await world.see(batch)).status == "finalizing"
        for batch in going:
            assert (await world.see(batch)).counts == Counts(2, 1, 0)
    assert asked[0] == asked[1]


async def test_a_batch_settles_with_its_last_request(world: StoreFixture) -> None:
    batch = await world.running(("m", 2), ("m", 2))
    first, second = await world.claim()
    assert (await world.settle(first)).settled == frozenset()
    assert (await world.see(batch)).status == "in_progress"
    world.pass_time(3)
    assert (await world.settle(second, failed=2)).settled == {batch.id}
    seen = await world.see(batch)
    assert (seen.status, seen.finalizing_at) == ("finalizing", world.now)


async def test_the_row_says_when_a_request_last_settled(world: StoreFixture) -> None:
    batch = await world.running(("m", 3))
    (lease,) = await world.claim()
    began = world.now
    beat = outcomes(lease, [0])
    await world.commit(beat, held=[lease])
    world.pass_time(1)
    await world.commit(outcomes(lease, [1]), held=[lease], segment="segments/s2")
    settled = world.now
    world.pass_time(1)
    await world.commit(beat, held=[lease])  # an old one again
    seen = await world.see(batch)
    assert (seen.first_settled_at, seen.last_settled_at) == (began, settled)


async def test_the_first_success_and_the_first_failure_make_the_files_visible(
    world: StoreFixture,
) -> None:
    batch = await world.running(dialect="together")
    lease = await world.claim_one()
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    await world.commit(outcomes(lease, [0]), held=[lease])
    seen = await world.see(batch)
    assert seen.output_file_id is not None
    assert seen.error_file_id is None
    output = await world.store.files.get("p1", seen.output_file_id)
    assert output is not None
    assert (output.status, output.purpose, output.batch_id) == ("growing", "batch_output", batch.id)
    assert (output.filename, output.dialect) == (f"{batch.id}_output.jsonl", "together")
    await world.commit(outcomes(lease, [1, 2], failed=[1]), held=[lease])
    seen = await world.see(batch)
    errors = await world.store.files.get("p1", seen.error_file_id or "")
    assert errors is not None
    assert (errors.status, errors.filename) == ("growing", f"{batch.id}_errors.jsonl")


# ---- fencing


async def test_a_reaped_lease_cannot_settle(world: StoreFixture) -> None:
    batch = await world.running()
    lease = await world.claim_one()
    world.pass_time(TTL_S)
    await world.store.work.reap(world.now)
    receipt = await world.settle(lease)
    assert receipt.lost == {lease.key}
    assert (await world.see(batch)).counts == Counts(4, 0, 0)
    assert await world.store.results.slices(batch.id) == []


async def test_a_paused_worker_that_wakes_cannot_touch_what_another_owns(
    world: StoreFixture,
) -> None:
    batch = await world.running()
    paused = await world.claim_one(worker="w1")
    world.pass_time(TTL_S)
    await world.store.work.reap(world.now)
    owner = await world.claim_one(worker="w2")
    await world.commit(outcomes(owner, [0]), held=[owner], worker="w2")
    receipt = await world.commit(outcomes(paused), held=[paused], released=[paused], worker="w1")
    assert receipt.lost == {paused.key}
    assert (await world.see(batch)).counts == Counts(4, 1, 0)
    receipt = await world.commit(outcomes(owner, [1, 2, 3]), worker="w2")
    assert receipt.settled == {batch.id}


async def test_the_same_worker_with_an_older_token_commits_nothing(world: StoreFixture) -> None:
    batch = await world.running()
    old = await world.claim_one()
    world.pass_time(TTL_S)
    await world.store.work.reap(world.now)
    new = await world.claim_one()
    receipt = await world.commit(outcomes(old, [0, 1]), held=[new])
    assert receipt.lost == frozenset(), "the worker does own the chunk, under its new token"
    assert (await world.see(batch)).counts.settled == 0
    assert (await world.settle(new)).settled == {batch.id}


async def test_the_same_worker_does_not_own_a_chunk_under_its_older_token(
    world: StoreFixture,
) -> None:
    await world.running()
    old = await world.claim_one()
    world.pass_time(TTL_S)
    await world.store.work.reap(world.now)
    new = await world.claim_one()
    assert (await world.commit(released=[old])).lost == {old.key}
    assert (await world.settle(new)).lost == frozenset()


async def test_a_token_in_the_wrong_hands_commits_nothing(world: StoreFixture) -> None:
    batch = await world.running()
    lease = await world.claim_one(worker="w1")
    receipt = await world.commit(outcomes(lease), held=[lease], worker="w2")
    assert receipt.lost == {lease.key}
    assert (await world.see(batch)).counts.settled == 0


async def test_what_is_lost_does_not_hold_up_the_rest_of_the_beat(world: StoreFixture) -> None:
    batch = await world.running(("m", 2), ("m", 2))
    first, second = await world.claim()
    world.pass_time(TTL_S - 1)
    await world.commit(held=[second])
    world.pass_time(1)
    await world.store.work.reap(world.now)
    receipt = await world.commit(outcomes(first), outcomes(second))
    assert receipt.lost == {first.key}
    assert (await world.see(batch)).counts == Counts(4, 2, 0)


async def test_an_unknown_chunk_is_lost(world: StoreFixture) -> None:
    ghost = (ChunkKey("batch_ghost", 0), 1)
    beat = GroupCommit(
        worker_id="w1",
        segment_key=None,
        slices=(),
        held=(ghost,),
        released=(),
        now=world.now,
        lease_ttl_s=TTL_S,
    )
    assert (await world.store.work.commit_group(beat)).lost == {ghost[0]}


async def test_an_empty_beat_changes_nothing(world: StoreFixture) -> None:
    receipt = await world.commit()
    assert (receipt.lost, receipt.stopped, receipt.settled) == (set(), set(), set())


# ---- exactly once


async def test_a_repeated_beat_counts_once_and_takes_nothing_away(world: StoreFixture) -> None:
    batch = await world.running()
    lease = await world.claim_one()
    beat = world.beat(outcomes(lease, [0, 1]), held=[lease])
    await world.store.work.commit_group(beat)
    receipt = await world.store.work.commit_group(beat)
    assert receipt.lost == frozenset()
    assert (await world.see(batch)).counts == Counts(4, 2, 0)
    assert (await world.see(batch)).usage == times(2)
    assert len(await world.store.results.slices(batch.id)) == 1


async def test_a_repeated_last_beat_loses_nothing(world: StoreFixture) -> None:
    batch = await world.running()
    beat = world.beat(outcomes(await world.claim_one()))
    assert (await world.store.work.commit_group(beat)).settled == {batch.id}
    receipt = await world.store.work.commit_group(beat)
    assert (receipt.lost, receipt.settled) == (set(), set())
    assert (await world.see(batch)).counts == Counts(4, 4, 0)


async def test_the_same_beat_sent_many_times_at_once_counts_once(world: StoreFixture) -> None:
    batch = await world.running()
    lease = await world.claim_one()
    beat = world.beat(outcomes(lease, [0, 1, 2]), held=[lease])
    await asyncio.gather(*(world.store.work.commit_group(beat) for _ in range(10)))
    assert (await world.see(batch)).counts == Counts(4, 3, 0)


@pytest.mark.parametrize("indices", [[1, 2], [0, 0], [9]])
async def test_a_slice_that_cannot_be_is_refused_whole(
    world: StoreFixture, indices: list[int]
) -> None:
    """A bit set before, a bit twice, a bit outside: fencing rules all of them out; counts stay."""
    batch = await world.running()
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [1]), held=[lease])
    world.pass_time(1)
    receipt = await world.commit(outcomes(lease, indices), held=[lease])
    assert receipt.lost == {lease.key}
    assert (await world.see(batch)).counts == Counts(4, 1, 0)
    assert len(await world.store.results.slices(batch.id)) == 1
    world.pass_time(TTL_S - 1)
    assert await world.store.work.reap(world.now) == 1, "what was refused is not renewed"


async def test_counts_never_fall_while_workers_come_and_go(world: StoreFixture) -> None:
    batch = await world.running(("m", 4), ("m", 4))
    before = Counts()
    for index in range(4):
        for lease in await world.claim(worker=f"w{index}"):
            await world.commit(
                outcomes(lease, [index], failed=[2]),
                released=[lease] if index < 3 else [],
                worker=f"w{index}",
            )
            counts = (await world.see(batch)).counts
            assert counts.completed >= before.completed
            assert counts.failed >= before.failed
            before = counts
    assert before == Counts(8, 6, 2)


# ---- giving back, stopping


async def test_a_released_chunk_waits_again_with_its_bits(world: StoreFixture) -> None:
    await world.running()
    lease = await world.claim_one(worker="w1")
    await world.commit(outcomes(lease, [0]), released=[lease])
    again = await world.claim_one(worker="w2")
    assert again.key == lease.key
    assert (await world.commit(outcomes(again, [1, 2, 3]), worker="w2")).settled


async def test_a_done_chunk_is_never_claimed_again(world: StoreFixture) -> None:
    await world.running(("m", 2), ("m", 2))
    first, second = await world.claim()
    await world.commit(outcomes(first), held=[first, second])
    world.pass_time(TTL_S)
    await world.store.work.reap(world.now)
    assert keys(await world.claim(worker="w2")) == [second.key]


@pytest.mark.parametrize("event", ["cancel", "expire"])
async def test_a_stopped_batch_keeps_what_finished_and_nothing_more(
    world: StoreFixture, event: str
) -> None:
    batch = await world.running(("m", 4), ("m", 4), window_s=3600)
    lease = await world.claim_one()
    if event == "cancel":
        await world.store.batches.cancel("p1", batch.id, world.now)
    else:
        world.pass_time(3600)
        assert await world.store.lifecycle.expire_due(world.now) == [batch.id]
    receipt = await world.commit(outcomes(lease, [0]), held=[lease])
    assert receipt.stopped == {batch.id}
    assert await world.store.lifecycle.claim_assembly("a", world.now, TTL_S) is None
    receipt = await world.commit(outcomes(lease, [1, 2]), released=[lease])
    assert (receipt.lost, receipt.stopped) == (set(), set())
    assert (await world.see(batch)).counts == Counts(8, 3, 0)
    assert (await world.see(batch)).usage == times(3)
    assert await world.claim(worker="w2") == []
    ended = await world.assemble(batch)
    assert ended.status == ("cancelled" if event == "cancel" else "expired")
    assert ended.counts == Counts(8, 3, 5)


async def test_a_cancelled_batch_whose_last_request_settles_stays_cancelled(
    world: StoreFixture,
) -> None:
    batch = await world.running()
    lease = await world.claim_one()
    await world.store.batches.cancel("p1", batch.id, world.now)
    receipt = await world.settle(lease)
    assert receipt.settled == frozenset()
    assert (await world.see(batch)).status == "cancelling"
    assert (await world.assemble(batch)).status == "cancelled"


async def test_cancel_and_the_last_beat_at_once_end_in_one_of_two_ways(world: StoreFixture) -> None:
    for _ in range(5):
        batch = await world.running()
        lease = await world.claim_one()
        receipt, _ = await asyncio.gather(
            world.settle(lease), world.store.batches.cancel("p1", batch.id, world.now)
        )
        seen = await world.see(batch)
        assert seen.counts == Counts(4, 4, 0)
        assert seen.status == ("finalizing" if receipt.settled else "cancelling")
        await world.assemble(batch)
