"""Contract of SteeringStore: holds are a set, each lifted alone; changes reach the chunks."""

from datetime import timedelta
from decimal import Decimal

import pytest

from lowtide.core.accounts.money import model_prices
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, OrganizationLimits
from lowtide.core.batches.batch import Batch
from lowtide.ports.steering import BatchChange
from testkit.store_fixture import DAY_S, TTL_S, StoreFixture, keys, outcomes


async def hold(
    world: StoreFixture, batch: Batch, who: str = "user", *, aborts: bool = False
) -> Batch:
    project = None if who == "operator" else batch.project_id
    how = "abort" if aborts else "finish"
    found = await world.store.steering.hold(project, batch.id, who, how, world.now)  # type: ignore[arg-type]
    assert found is not None
    return found


async def lift(world: StoreFixture, batch: Batch, who: str = "user") -> Batch:
    project = None if who == "operator" else batch.project_id
    found = await world.store.steering.lift(project, batch.id, who, world.now)  # type: ignore[arg-type]
    assert found is not None
    return found


async def test_a_held_batch_gives_out_no_chunk_until_the_last_hold_is_lifted(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 4), ("m", 4))
    for _ in range(2):  # twice is once
        assert (await hold(world, batch)).holds == ("user",)
    assert (await hold(world, batch, "operator")).holds == ("operator", "user")
    assert await world.claim() == []
    assert (await world.see(batch)).status == "in_progress"
    for _ in range(2):
        assert (await lift(world, batch)).holds == ("operator",)
    assert await world.claim() == []
    after = await lift(world, batch, "operator")
    assert (after.holds, after.in_flight) == ((), None)
    assert len(await world.claim()) == 2


async def test_a_batch_is_held_since_the_first_hold_that_came_while_it_had_none(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 4))
    assert batch.held_at is None
    since = world.now
    assert (await hold(world, batch)).held_at == since
    world.pass_time(60)
    for held in (await hold(world, batch), await hold(world, batch, "operator")):
        assert held.held_at == since
    assert (await lift(world, batch)).held_at == since, "the other hold is there still"
    assert (await lift(world, batch, "operator")).held_at is None
    world.pass_time(60)
    assert (await hold(world, batch)).held_at == world.now


async def test_a_batch_held_while_it_is_validated_is_planned_and_waits(world: StoreFixture) -> None:
    batch = await world.validating()
    assert (await hold(world, batch)).holds == ("user",)
    assert await world.plan(await world.validation(batch), ("m", 4)) is True
    seen = await world.see(batch)
    assert (seen.status, seen.holds, seen.in_flight) == ("in_progress", ("user",), "finish")
    assert await world.claim() == []
    await lift(world, batch)
    assert len(await world.claim()) == 1


async def test_calls_are_aborted_exactly_while_one_of_the_holds_asks_for_it(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 4))
    lease = await world.claim_one()
    assert (await hold(world, batch)).in_flight == "finish"
    assert (await hold(world, batch, "operator", aborts=True)).in_flight == "abort"
    after = await lift(world, batch, "operator")
    assert (after.holds, after.in_flight) == (("user",), "finish")
    receipt = await world.commit(outcomes(lease, [0]), held=[lease])
    assert (receipt.stopped, receipt.paused) == (set(), {batch.id})
    assert (await hold(world, batch, aborts=True)).in_flight == "abort"
    assert (await lift(world, batch, "operator")).in_flight == "abort", "that hold is not there"
    assert (await hold(world, batch)).in_flight == "finish", "whoever holds it changes their mind"


@pytest.mark.parametrize("aborts", [False, True])
async def test_workers_learn_whether_to_finish_their_calls(
    world: StoreFixture, aborts: bool
) -> None:
    batch = await world.running(("m", 4))
    lease = await world.claim_one()
    await hold(world, batch, aborts=aborts)
    receipt = await world.commit(outcomes(lease, [0]), held=[lease])
    assert receipt.stopped == ({batch.id} if aborts else set())
    assert receipt.paused == (set() if aborts else {batch.id})
    receipt = await world.commit(outcomes(lease, [1]), released=[lease])
    assert receipt.lost == set()
    assert (await world.see(batch)).counts.completed == 2, "what finished is kept"
    assert await world.claim() == []
    await lift(world, batch)
    again = await world.claim_one()
    assert again.done[0] == 0b11


async def test_what_a_dead_worker_held_of_a_held_batch_waits_for_it(world: StoreFixture) -> None:
    batch = await world.running(("m", 4))
    lease = await world.claim_one()
    await hold(world, batch)
    world.pass_time(TTL_S + 1)
    await world.store.work.reap(world.now)
    assert await world.claim() == []
    await lift(world, batch)
    assert keys(await world.claim()) == [lease.key]


async def test_a_held_batch_may_settle_expire_and_be_cancelled(world: StoreFixture) -> None:
    settled = await world.running(("m", 1))
    lease = await world.claim_one()
    await hold(world, settled)
    assert (await world.settle(lease)).settled == {settled.id}
    assert (await world.assemble(settled)).holds == ()
    cancelled = await world.running(("m", 1))
    await hold(world, cancelled)
    await world.store.batches.cancel(cancelled.project_id, cancelled.id, world.now)
    seen = await world.see(cancelled)
    assert (seen.status, seen.holds) == ("cancelling", ())
    await world.assemble(cancelled)
    expired = await world.running(("m", 1))
    await hold(world, expired)
    world.pass_time(DAY_S)
    assert await world.store.lifecycle.expire_due(world.now) == [expired.id]


async def test_a_batch_that_ended_takes_neither_hold_nor_change(world: StoreFixture) -> None:
    batch = await world.completed()
    assert (await hold(world, batch)).holds == ()
    change = BatchChange(priority=9, metadata={})
    found = await world.store.steering.change(batch.project_id, batch.id, change, world.now)
    assert found == batch


async def test_the_spend_cap_is_one_hold_among_others(world: StoreFixture) -> None:
    world.prices = {"m": model_prices(Decimal(1), None, Decimal(1), Decimal("0.5"))}
    held, free = await world.running(("m", 4), ("n", 4)), await world.running(("n", 4))
    lease = await world.claim_one()
    await hold(world, held)
    await cap(world, 1)
    receipt = await world.commit(outcomes(lease, [0]), held=[lease])
    assert receipt.stopped == {held.id}, "money is spent no more, whoever else paused the batch"
    assert (await world.see(held)).holds == ("spend_cap", "user")
    assert (await world.see(free)).holds == ("spend_cap",)
    after = await lift(world, held)
    assert (after.holds, after.in_flight) == (("spend_cap",), "abort")
    assert await world.claim(models=("m", "n")) == []
    await hold(world, free)
    await cap(world, None)
    assert (await world.see(held)).holds == ()
    assert (await world.see(free)).holds == ("user",)
    waiting = await world.claim(models=("m", "n"))
    assert [each.key.batch_id for each in waiting] == [held.id]


async def cap(world: StoreFixture, pico: int | None) -> None:
    assert await world.store.tenants.change_organization(
        DEFAULT_ORGANIZATION, limits=OrganizationLimits(), spend_cap_pico=pico, now=world.now
    )


async def test_another_project_steers_nothing(world: StoreFixture) -> None:
    batch = await world.running(("m", 4))
    store = world.store.steering
    assert await store.hold("p2", batch.id, "user", "finish", world.now) is None
    assert await store.lift("p2", batch.id, "user", world.now) is None
    assert await store.change("p2", batch.id, BatchChange(priority=1), world.now) is None
    assert await store.hold(None, "batch_unknown", "operator", "finish", world.now) is None
    assert await world.see(batch) == batch


# ---- changes


async def test_a_raised_priority_lets_the_batch_go_first(world: StoreFixture) -> None:
    first = await world.running(("m", 2), ("m", 2))
    second = await world.running(("m", 2), ("m", 2))
    assert (await world.claim_one()).key.batch_id == first.id
    change = BatchChange(priority=5, metadata={"k": "v"})
    after = await world.store.steering.change(second.project_id, second.id, change, world.now)
    assert after is not None
    assert (after.priority, after.metadata) == (5, {"k": "v"})
    assert [lease.key.batch_id for lease in await world.claim()] == [second.id] * 2 + [first.id]


async def test_a_new_window_moves_deadline_and_expiry(world: StoreFixture) -> None:
    batch = await world.running(("m", 2))
    change = BatchChange(completion_window_s=2 * DAY_S)
    after = await world.store.steering.change(batch.project_id, batch.id, change, world.now)
    assert after is not None
    assert after.expires_at == batch.created_at + timedelta(seconds=2 * DAY_S)
    assert after.completion_window_s == 2 * DAY_S
    assert (await world.claim_one()).deadline_at == after.expires_at
    world.pass_time(DAY_S)
    assert await world.store.lifecycle.expire_due(world.now) == []
    world.pass_time(DAY_S)
    assert await world.store.lifecycle.expire_due(world.now) == [batch.id]


async def test_a_change_while_validating_holds_for_the_plan(world: StoreFixture) -> None:
    batch = await world.validating()
    change = BatchChange(priority=3, completion_window_s=3600)
    await world.store.steering.change(batch.project_id, batch.id, change, world.now)
    assert await world.plan(await world.validation(batch), ("m", 4)) is True
    lease = await world.claim_one()
    assert lease.deadline_at == batch.created_at + timedelta(hours=1)
