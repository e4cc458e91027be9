"""Contract of WorkStore, the leases: who gets which chunk, in which order, and taking it back."""

import asyncio

from lowtide.core.batches.chunk import NOTHING_DONE, ChunkKey, mark_done
from testkit.store_fixture import DAY_S, TTL_S, StoreFixture, keys, outcomes


async def test_a_lease_has_all_that_running_the_chunk_needs(world: StoreFixture) -> None:
    batch = await world.running(("m", 3), ("m", 2), dialect="together")
    first, second = await world.claim(worker="w1")
    assert (first.key, second.key) == (ChunkKey(batch.id, 0), ChunkKey(batch.id, 1))
    assert (second.first, second.count, second.done) == (3, 2, NOTHING_DONE)
    assert (second.project_id, second.dialect, second.model) == ("p1", "together", "m")
    assert second.endpoint == batch.endpoint
    assert (second.plan_key, second.input_key) == (
        f"plans/{batch.id}",
        f"files/{batch.input_file_id}",
    )
    assert second.deadline_at == batch.expires_at
    assert (second.expires_at - world.now).total_seconds() == TTL_S


async def test_priority_goes_first_then_deadline_then_creation_then_seq(
    world: StoreFixture,
) -> None:
    late = await world.running(("m", 1), window_s=2 * DAY_S)
    first = await world.running(("m", 1), ("m", 1))
    world.pass_time(1)
    younger = await world.running(("m", 1), window_s=DAY_S - 1)  # the same deadline, created later
    urgent = await world.running(("m", 1), window_s=3 * DAY_S, priority=5)
    assert keys(await world.claim()) == [
        ChunkKey(urgent.id, 0),
        ChunkKey(first.id, 0),
        ChunkKey(first.id, 1),
        ChunkKey(younger.id, 0),
        ChunkKey(late.id, 0),
    ]


async def test_claims_over_several_models_keep_one_order(world: StoreFixture) -> None:
    batch = await world.running(("a", 1), ("b", 1), ("a", 1), ("c", 1))
    leases = await world.claim(2, models=("b", "a"))
    assert [lease.key.seq for lease in leases] == [0, 1]
    leases = await world.claim(models=("b", "a"))
    assert keys(leases) == [ChunkKey(batch.id, 2)]


async def test_priority_goes_first_over_several_models_too(world: StoreFixture) -> None:
    await world.running(("a", 1), ("b", 1))
    urgent = await world.running(("c", 1), ("c", 1), ("c", 1), ("b", 1), priority=1)
    (lease,) = await world.claim(1, models=("a", "b"))
    assert lease.key == ChunkKey(urgent.id, 3)


async def test_a_claim_takes_only_the_models_and_the_number_asked_for(world: StoreFixture) -> None:
    await world.running(("a", 1), ("b", 1), ("b", 1), ("b", 1))
    assert [lease.key.seq for lease in await world.claim(2, models=("b",))] == [1, 2]
    assert await world.claim(models=("z",)) == []
    assert await world.claim(models=()) == []


async def test_twenty_claimers_at_once_never_get_the_same_chunk(world: StoreFixture) -> None:
    await world.running(*[("m", 1)] * 60)
    await world.running(*[("m", 1)] * 40)
    claims = [world.claim(7, worker=f"w{number}") for number in range(20)]
    claimed = [key for leases in await asyncio.gather(*claims) for key in keys(leases)]
    assert len(claimed) == len(set(claimed)) == 100


async def test_a_batch_that_is_not_in_progress_has_nothing_to_claim(world: StoreFixture) -> None:
    cancelled = await world.running()
    await world.store.batches.cancel("p1", cancelled.id, world.now)
    await world.validating()
    assert await world.claim() == []


async def test_named_models_are_those_of_all_batches_that_are_kept(world: StoreFixture) -> None:
    assert await world.store.work.named_models(9) == frozenset()
    await world.completed()
    await world.running(("a", 1), ("b", 1))
    assert await world.store.work.named_models(9) == {"a", "b", "m"}
    assert len(await world.store.work.named_models(2)) == 2


async def test_a_reaped_chunk_goes_to_the_next_worker_with_a_new_token(world: StoreFixture) -> None:
    await world.running()
    old = await world.claim_one(worker="w1")
    world.pass_time(TTL_S - 1)
    assert await world.store.work.reap(world.now) == 0
    world.pass_time(1)
    assert await world.store.work.reap(world.now) == 1
    new = await world.claim_one(worker="w2")
    assert new.key == old.key
    assert new.token > old.token


async def test_a_new_owner_sees_what_is_done_already(world: StoreFixture) -> None:
    await world.running(("m", 5))
    old = await world.claim_one(worker="w1")
    await world.commit(outcomes(old, [0, 3], failed=[3]), held=[old])
    world.pass_time(TTL_S)
    await world.store.work.reap(world.now)
    assert (await world.claim_one(worker="w2")).done == mark_done(NOTHING_DONE, [0, 3])


async def test_a_beat_renews_the_leases_it_holds_and_no_other(world: StoreFixture) -> None:
    await world.running(("m", 1), ("m", 1))
    held, forgotten = await world.claim()
    world.pass_time(TTL_S - 1)
    await world.commit(held=[held])
    world.pass_time(1)
    assert await world.store.work.reap(world.now) == 1
    assert keys(await world.claim(worker="w2")) == [forgotten.key]


async def test_an_expired_lease_that_was_not_reaped_may_still_commit(world: StoreFixture) -> None:
    batch = await world.running()
    lease = await world.claim_one()
    world.pass_time(TTL_S + 5)
    receipt = await world.settle(lease)
    assert receipt.lost == frozenset()
    assert receipt.settled == {batch.id}


async def test_reaping_a_cancelled_batch_ends_its_chunks(world: StoreFixture) -> None:
    batch = await world.running(("m", 1), ("m", 1))
    await world.claim(1)
    await world.store.batches.cancel("p1", batch.id, world.now)
    assert await world.store.lifecycle.claim_assembly("a", world.now, TTL_S) is None
    world.pass_time(TTL_S)
    assert await world.store.work.reap(world.now) == 1
    assert await world.claim(worker="w2") == []
    assert (await world.assembly()).batch.id == batch.id


async def test_a_dead_worker_gives_back_all_it_held_at_once(world: StoreFixture) -> None:
    await world.running(("m", 1), ("m", 1), ("m", 1))
    other = await world.claim_one(worker="w2")
    held = await world.claim(worker="w1")
    task = await world.validating()
    assert (await world.store.lifecycle.claim_validation("w1", world.now, TTL_S)) is not None
    assert await world.store.work.release_worker("w1") == 3
    assert keys(await world.claim(worker="w3")) == keys(held)
    assert (await world.validation(task)).batch.id == task.id
    assert (await world.commit(held=[other], worker="w2")).lost == frozenset()


async def test_the_queue_counts_requests_that_wait_and_that_are_leased(world: StoreFixture) -> None:
    await world.running(("m", 4), ("m", 3), ("n", 2))
    await world.running(("m", 5))
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [1]), held=[lease])
    depth = await world.store.batches.queue()
    assert (depth.waiting_requests, depth.leased_requests, depth.batches) == (10, 3, 2)
    depth = await world.store.batches.queue("m")
    assert (depth.waiting_requests, depth.leased_requests, depth.batches) == (8, 3, 2)
    depth = await world.store.batches.queue("n")
    assert (depth.waiting_requests, depth.leased_requests, depth.batches) == (2, 0, 1)
    depth = await world.store.batches.queue("unknown")
    assert (depth.waiting_requests, depth.leased_requests, depth.batches) == (0, 0, 0)


async def test_a_cancelled_batch_waits_for_nothing_but_its_leased_requests(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 4), ("m", 3))
    await world.claim(1)
    await world.store.batches.cancel("p1", batch.id, world.now)
    depth = await world.store.batches.queue()
    assert (depth.waiting_requests, depth.leased_requests, depth.batches) == (0, 4, 0)
