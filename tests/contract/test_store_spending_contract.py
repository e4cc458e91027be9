"""Contract of the spend cap: an organization that reached it pauses, and goes on when it may."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from lowtide.core.accounts.money import model_prices
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, OrganizationLimits
from lowtide.core.batches.batch import Batch
from testkit.store_fixture import TTL_S, StoreFixture, keys, outcomes

PER_ANSWER_PICO = 10 * 500_000 + 5 * 500_000


@pytest.fixture
async def world(world: StoreFixture) -> AsyncIterator[StoreFixture]:
    """One dollar per million tokens, halved; a cap of ten answers."""
    world.prices = {"m": model_prices(Decimal(1), None, Decimal(1), Decimal("0.5"))}
    await cap(world, 10)
    yield world


async def cap(world: StoreFixture, answers: int | None) -> None:
    assert await world.store.tenants.change_organization(
        DEFAULT_ORGANIZATION,
        limits=OrganizationLimits(),
        spend_cap_pico=None if answers is None else answers * PER_ANSWER_PICO,
        now=world.now,
    )


async def paused(world: StoreFixture) -> Batch:
    """A batch of three chunks of ten that has just reached the cap; no chunk of it is leased."""
    batch = await world.running(("m", 10), ("m", 10), ("m", 10))
    await world.settle(await world.claim_one())
    seen = await world.see(batch)
    assert seen.holds == ("spend_cap",)
    return seen


async def is_paused(world: StoreFixture, batch: Batch) -> bool:
    return (await world.see(batch)).holds == ("spend_cap",)


# ---- pausing


async def test_the_charge_that_reaches_the_cap_pauses_all_batches_of_the_organization(
    world: StoreFixture,
) -> None:
    other = await world.organization()
    await world.project("q1", other.id)
    batch = await world.running(("m", 9), ("m", 9))
    sister = await world.running(("m", 9), project="p2")
    foreign = await world.running(("n", 3), project="q1")
    unplanned = await world.validating()
    first = await world.claim_one()
    await world.settle(first)
    assert not await is_paused(world, batch), "nine answers are below the cap"
    second = await world.claim_one()
    receipt = await world.commit(outcomes(second, [0]), held=[second])
    assert receipt.stopped == {batch.id}
    assert await is_paused(world, batch)
    assert await is_paused(world, sister)
    assert not await is_paused(world, unplanned)
    assert (await world.see(batch)).status == "in_progress"
    leases = await world.claim(models=("m", "n"))
    assert [lease.key.batch_id for lease in leases] == [foreign.id]
    assert not await is_paused(world, foreign)


async def test_what_a_worker_holds_of_a_paused_batch_is_charged_and_held(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 10), ("m", 10))
    first, second = await world.claim()
    receipt = await world.commit(outcomes(first), held=[second])
    assert receipt.stopped == {batch.id}
    assert receipt.lost == frozenset()
    receipt = await world.commit(outcomes(second, [0, 1]), held=[second])
    assert receipt.stopped == {batch.id}, "said again as long as the chunk is held"
    await world.commit(outcomes(second, [2]), released=[second])
    assert await world.claim() == []
    seen = await world.see(batch)
    assert seen.counts.completed == 13
    spent = await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, world.now)
    assert spent == 13 * PER_ANSWER_PICO, "what was in flight passes the cap"
    await cap(world, 20)
    again = await world.claim_one()
    assert (again.key, list(again.done[:1])) == (second.key, [0b111])


async def test_the_cap_is_passed_by_no_more_than_was_leased_when_it_was_reached(
    world: StoreFixture,
) -> None:
    """Several workers, each with a call in flight for each request of its chunk, which all end
    although the cap is reached; and each commit of theirs at the same instant."""
    workers = ["w1", "w2", "w3", "w4"]
    batches = [await world.running(*[("m", 4)] * 8) for _ in range(3)]
    held = {worker: await world.claim_one(worker=worker) for worker in workers}
    rounds = 0
    while held:
        rounds += 1
        leased_before = sum(lease.count for lease in held.values())
        spent_before = await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, world.now)
        half = range(2) if rounds % 2 else range(2, 4)
        await asyncio.gather(
            *(
                world.commit(outcomes(lease, half), held=[lease], worker=worker)
                for worker, lease in held.items()
            )
        )
        spent = await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, world.now)
        if spent_before < 10 * PER_ANSWER_PICO <= spent:
            unsettled = leased_before - (rounds % 2 == 0) * leased_before // 2
            bound = spent_before + unsettled * PER_ANSWER_PICO
        if rounds % 2 == 0:
            claims = {worker: await world.claim(1, worker=worker) for worker in workers}
            held = {worker: leases[0] for worker, leases in claims.items() if leases}
    assert 10 * PER_ANSWER_PICO < spent <= bound <= (9 + 16) * PER_ANSWER_PICO
    assert all([await is_paused(world, batch) for batch in batches])


async def test_a_bound_on_requests_in_flight_bounds_how_far_the_cap_is_passed(
    world: StoreFixture,
) -> None:
    await world.store.tenants.change_organization(
        DEFAULT_ORGANIZATION,
        limits=OrganizationLimits(requests_in_flight=4),
        spend_cap_pico=10 * PER_ANSWER_PICO,
        now=world.now,
    )
    await world.running(*[("m", 4)] * 12)
    while leases := await world.claim():
        assert sum(lease.count for lease in leases) <= 4
        for lease in leases:
            await world.settle(lease)
    spent = await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, world.now)
    assert spent == 12 * PER_ANSWER_PICO, "at most one answer less than the bound above the cap"


async def test_a_worker_whose_own_batch_was_cheap_learns_of_the_pause_too(
    world: StoreFixture,
) -> None:
    cheap = await world.running(("free", 4))
    held = await world.claim_one(worker="w2", models=("free",))
    await paused(world)
    assert (await world.commit(held=[held], worker="w2")).stopped == {cheap.id}
    await world.commit(released=[held], worker="w2")
    assert await world.claim(models=("free",)) == []


@pytest.mark.parametrize("end", ["reaped", "dead", "released with the charge"])
async def test_chunks_of_a_paused_batch_that_come_back_are_held(
    world: StoreFixture, end: str
) -> None:
    batch = await world.running(("m", 10), ("m", 10))
    first, second = await world.claim()
    if end == "released with the charge":
        await world.commit(outcomes(first), released=[second])
    else:
        await world.commit(outcomes(first), held=[second])
    if end == "reaped":
        world.pass_time(TTL_S)
        assert await world.store.work.reap(world.now) == 1
    if end == "dead":
        assert await world.store.work.release_worker("w1") == 1
    assert await world.claim(worker="w2") == []
    await cap(world, None)
    assert keys(await world.claim(worker="w2")) == [second.key]
    assert not await is_paused(world, batch)


async def test_a_plan_of_a_paused_organization_is_held(world: StoreFixture) -> None:
    batch = await paused(world)
    world.pass_time(60)
    late = await world.running(("m", 5))
    assert (late.status, late.holds) == ("in_progress", ("spend_cap",))
    assert late.held_at == world.now
    owner = await world.store.tenants.organization(DEFAULT_ORGANIZATION)
    assert owner is not None
    assert owner.paused_at == (await world.see(batch)).held_at
    assert await world.claim() == []
    await cap(world, None)
    assert [lease.key.batch_id for lease in await world.claim()][-1] == late.id


async def test_what_is_held_does_not_count_as_waiting(world: StoreFixture) -> None:
    await paused(world)
    depth = await world.store.batches.queue()
    assert (depth.waiting_requests, depth.leased_requests, depth.batches) == (0, 0, 0)
    await cap(world, None)
    assert (await world.store.batches.queue()).waiting_requests == 20


async def test_the_last_request_ends_a_batch_and_its_pause(world: StoreFixture) -> None:
    batch = await world.running(("m", 10))
    receipt = await world.settle(await world.claim_one())
    assert receipt.settled == {batch.id}
    assert receipt.stopped == frozenset()
    seen = await world.see(batch)
    assert (seen.status, seen.holds) == ("finalizing", ())
    assert (await world.assemble(batch)).status == "completed"


async def test_a_paused_batch_settles_with_what_was_in_flight(world: StoreFixture) -> None:
    batch = await world.running(("m", 10), ("m", 1))
    first, second = await world.claim()
    await world.commit(outcomes(first), held=[second])
    assert await is_paused(world, batch)
    assert (await world.settle(second)).settled == {batch.id}
    assert not await is_paused(world, batch)


@pytest.mark.parametrize("event", ["cancel", "expire"])
async def test_a_paused_batch_can_be_stopped(world: StoreFixture, event: str) -> None:
    batch = await world.running(("m", 10), ("m", 10), ("m", 10), window_s=3600)
    first, second = await world.claim(2)
    await world.commit(outcomes(first), held=[second])
    if event == "cancel":
        seen = await world.store.batches.cancel("p1", batch.id, world.now)
        assert seen is not None
        assert (seen.status, seen.holds) == ("cancelling", ())
    else:
        world.pass_time(3600)
        assert await world.store.lifecycle.expire_due(world.now) == [batch.id]
    assert (await world.commit(held=[second])).stopped == {batch.id}
    await world.commit(outcomes(second, [0]), released=[second])
    await cap(world, None)
    assert await world.claim() == [], "what was held is dropped, and stays so"
    ended = await world.assemble(batch)
    assert (ended.counts.completed, ended.counts.failed) == (11, 19)


async def test_free_work_never_reaches_a_cap(world: StoreFixture) -> None:
    batch = await world.running(("free", 10), ("free", 10))
    await world.settle(await world.claim_one(models=("free",)))
    assert not await is_paused(world, batch)


async def test_charges_at_once_pause_once_and_sum_up(world: StoreFixture) -> None:
    batch = await world.running(*[("m", 4)] * 8)
    leases = await world.claim()
    await asyncio.gather(*(world.commit(outcomes(lease)) for lease in leases))
    spent = await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, world.now)
    assert spent == 32 * PER_ANSWER_PICO
    assert (await world.see(batch)).status == "finalizing"


# ---- going on


async def test_a_cap_that_rises_lets_batches_go_on(world: StoreFixture) -> None:
    batch = await paused(world)
    await cap(world, 10)
    assert await is_paused(world, batch), "it is not above what was spent"
    await cap(world, 11)
    assert not await is_paused(world, batch)
    assert len(await world.claim()) == 2


async def test_a_new_month_lets_batches_go_on(world: StoreFixture) -> None:
    batch = await paused(world)
    world.now = datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC)
    assert await world.store.ledger.unpause(world.now) == []
    assert await is_paused(world, batch)
    world.now = datetime(2026, 4, 1, tzinfo=UTC)
    assert await world.store.ledger.unpause(world.now) == [batch.id]
    assert await world.store.ledger.unpause(world.now) == []
    assert not await is_paused(world, batch)
    await world.settle(await world.claim_one())
    assert await is_paused(world, batch), "the new month has the same cap"


async def test_a_worker_that_still_holds_a_chunk_goes_on_after_the_pause(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 10), ("m", 10))
    first, second = await world.claim()
    await world.commit(outcomes(first), held=[second])
    await cap(world, 100)
    assert (await world.commit(held=[second])).stopped == frozenset()
    assert (await world.settle(second)).settled == {batch.id}


async def test_unpausing_leaves_other_organizations_paused(world: StoreFixture) -> None:
    other = await world.organization(spend_cap_pico=PER_ANSWER_PICO)
    await world.project("q1", other.id)
    foreign = await world.running(("m", 1), ("m", 1), project="q1")
    await world.settle(await world.claim_one())
    batch = await paused(world)
    await cap(world, None)
    assert not await is_paused(world, batch)
    assert await is_paused(world, foreign)
    assert await world.store.ledger.unpause(world.now) == []


async def test_a_cap_below_what_was_spent_takes_effect_with_the_next_charge(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 5), ("m", 5))
    await world.settle(await world.claim_one())
    await cap(world, 3)
    assert not await is_paused(world, batch)
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [0]), held=[lease])
    assert await is_paused(world, batch)
