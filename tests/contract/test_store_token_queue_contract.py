"""Contract of TokenQueueStore: batches above the enqueued-token limit wait, and begin by order."""

import asyncio
from datetime import timedelta

from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.accounts.token_queue import PlanQueued, TokenDecision, TokenLimitReached
from lowtide.core.batches.batch import Batch
from lowtide.ports.steering import BatchChange
from lowtide.store.sql_store import SqlStore
from testkit.store_fixture import DAY_S, StoreFixture

MOST = 1000


async def queued(world: StoreFixture, requests: int = 5, model: str = "m", **rest: int) -> Batch:
    """A batch of so many hundreds of tokens, which finds no room."""
    world.pass_time(1)
    batch = await world.validating(**rest)
    assert isinstance(await plan(world, batch, requests, model), PlanQueued)
    return await world.see(batch)


async def plan(
    world: StoreFixture, batch: Batch, requests: int, model: str = "m"
) -> TokenLimitReached | PlanQueued | bool:
    lease = await world.validation(batch)
    return await world.plan(lease, (model, requests), tokens_max=MOST, queues=True)


async def let_in(world: StoreFixture, most: int = MOST) -> TokenDecision:
    return await world.store.token_queue.let_in(DEFAULT_ORGANIZATION, most, world.now)


async def full(world: StoreFixture, requests: int = 8) -> Batch:
    """A batch that runs and has so many hundreds of tokens."""
    batch = await world.validating()
    assert await plan(world, batch, requests) is True
    return batch


async def free(world: StoreFixture, batch: Batch) -> None:
    await world.store.batches.cancel(batch.project_id, batch.id, world.now)


async def test_a_batch_without_room_waits_planned_and_is_validated_no_more(
    world: StoreFixture,
) -> None:
    await full(world)
    batch = await queued(world)
    assert (batch.status, batch.queued_at, batch.counts.total) == ("validating", world.now, 5)
    assert await world.store.lifecycle.claim_validation("v2", world.now, 30) is None
    assert await world.store.work.reap(world.now + timedelta(hours=1)) == 0
    assert [each.kind for each in await world.store.history.notes(batch.id)] == ["queued"]
    owners = await world.store.token_queue.owners()
    assert owners == {DEFAULT_ORGANIZATION: "p1"}
    queue = await world.store.token_queue.queue(DEFAULT_ORGANIZATION)
    assert [(each.id, each.tokens) for each in queue.batches] == [(batch.id, {"m": 500})]
    assert queue.enqueued == {"m": 800}
    assert await let_in(world) == TokenDecision((), ())


async def test_it_begins_as_requests_of_others_finish(world: StoreFixture) -> None:
    await full(world)
    batch = await queued(world)
    await world.settle(await world.claim_one())
    assert (await let_in(world)).let_in == (batch.id,)
    seen = await world.see(batch)
    assert (seen.status, seen.queued_at, seen.in_progress_at) == ("in_progress", None, world.now)
    assert (await world.claim_one()).key.batch_id == batch.id
    assert await world.store.token_queue.owners() == {}


async def test_a_newcomer_that_would_fit_waits_behind_those_of_its_model(
    world: StoreFixture,
) -> None:
    await full(world)
    first, second = await queued(world), await queued(world, 1)
    other = await world.validating()
    assert await plan(world, other, 5, "n") is True, "another model has room of its own"
    urgent = await world.validating(priority=5)
    assert await plan(world, urgent, 1) is True, "a higher priority goes first"
    queue = await world.store.token_queue.queue(DEFAULT_ORGANIZATION)
    assert [each.id for each in queue.batches] == [first.id, second.id]


async def test_who_has_waited_longest_is_first_unless_priorities_differ(
    world: StoreFixture,
) -> None:
    runs = await full(world)
    first, second = await queued(world, 9), await queued(world, 9)
    raised = await queued(world, 9)
    change = BatchChange(priority=3)
    await world.store.steering.change(raised.project_id, raised.id, change, world.now)
    for expected in (raised, first, second):
        await free(world, runs)
        assert (await let_in(world)).let_in == (expected.id,)
        runs = expected


async def test_processes_that_ask_at_once_let_each_batch_in_once(
    world: StoreFixture, store_url: str
) -> None:
    runs = await full(world)
    batches = [await queued(world, 5) for _ in range(2)]
    await free(world, runs)
    other = SqlStore(store_url)
    await other.open()
    try:
        asked = [store.token_queue.let_in(DEFAULT_ORGANIZATION, MOST, world.now)
                 for store in (world.store, other) for _ in range(3)]  # fmt: skip
        found = [batch_id for done in await asyncio.gather(*asked) for batch_id in done.let_in]
    finally:
        await other.aclose()
    assert sorted(found) == sorted(batch.id for batch in batches)


async def test_one_that_waits_can_be_cancelled_and_expires(world: StoreFixture) -> None:
    await full(world)
    cancelled, expires = await queued(world), await queued(world, window_s=3600)
    await free(world, cancelled)
    seen = await world.see(cancelled)
    assert (seen.status, seen.queued_at) == ("cancelling", None)
    ended = await world.assemble(cancelled)
    assert (ended.status, ended.counts.failed) == ("cancelled", 5), "its lines are in the errors"
    world.pass_time(3600)
    assert await world.store.lifecycle.expire_due(world.now) == [expires.id]
    assert (await world.assemble(expires)).status == "expired"
    assert await world.store.token_queue.owners() == {}


async def test_a_held_one_is_let_in_and_starts_nothing(world: StoreFixture) -> None:
    runs = await full(world)
    batch = await queued(world)
    await world.store.steering.hold("p1", batch.id, "user", "finish", world.now)
    await free(world, runs)
    assert (await let_in(world)).let_in == (batch.id,)
    seen = await world.see(batch)
    assert (seen.status, seen.holds, seen.in_flight) == ("in_progress", ("user",), "finish")
    assert await world.claim() == []
    await world.store.steering.lift("p1", batch.id, "user", world.now)
    assert len(await world.claim()) == 1


async def test_a_hold_lifted_while_it_waits_starts_nothing_either(world: StoreFixture) -> None:
    await full(world)
    batch = await queued(world)
    await world.store.steering.hold("p1", batch.id, "user", "finish", world.now)
    after = await world.store.steering.lift("p1", batch.id, "user", world.now)
    assert after is not None and after.queued_at is not None
    (running,) = await world.claim()
    assert running.key.batch_id != batch.id


async def test_one_that_alone_passes_the_limit_fails_as_without_a_queue(
    world: StoreFixture,
) -> None:
    batch = await world.validating()
    assert await plan(world, batch, 11) == TokenLimitReached("m", MOST, 0, 1100)


async def test_one_that_a_lowered_limit_shuts_out_goes_back_to_validation(
    world: StoreFixture,
) -> None:
    await full(world)
    large, small = await queued(world, 9), await queued(world, 5)
    assert await let_in(world, 850) == TokenDecision((), (large.id,))
    seen = await world.see(large)
    assert (seen.status, seen.queued_at, seen.plan_key) == ("validating", None, None)
    assert seen.counts.total == 0
    lease = await world.validation(large)
    reached = await world.plan(lease, ("m", 9), tokens_max=850, queues=True)
    assert isinstance(reached, TokenLimitReached)
    assert await world.store.lifecycle.reject(lease, [], 0, world.now)
    assert (await world.see(small)).queued_at is not None


async def test_a_plan_whose_answer_was_lost_is_not_stored_twice(world: StoreFixture) -> None:
    await full(world)
    batch = await world.validating()
    lease = await world.validation(batch)
    for expected in (PlanQueued(), False):
        done = await world.plan(lease, ("m", 5), tokens_max=MOST, queues=True)
        assert done == expected


async def test_the_deadline_of_a_batch_goes_on_while_it_waits(world: StoreFixture) -> None:
    runs = await full(world)
    batch = await queued(world)
    world.pass_time(DAY_S / 2)
    await free(world, runs)
    await let_in(world)
    (lease,) = await world.claim()
    assert lease.deadline_at == batch.expires_at
