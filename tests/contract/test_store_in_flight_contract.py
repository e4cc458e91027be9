"""Contract of claims under a bound on requests in flight: nobody gets more, nobody waits behind."""

import asyncio

from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, OrganizationLimits
from testkit.store_fixture import TTL_S, StoreFixture, keys, outcomes


async def bound(world: StoreFixture, organization_id: str, requests: int | None) -> None:
    assert await world.store.tenants.change_organization(
        organization_id,
        limits=OrganizationLimits(requests_in_flight=requests),
        spend_cap_pico=None,
        now=world.now,
    )


async def test_an_organization_at_its_bound_gets_no_further_chunk(world: StoreFixture) -> None:
    await bound(world, DEFAULT_ORGANIZATION, 20)
    await world.running(*[("m", 10)] * 5)
    leases = await world.claim()
    assert len(leases) == 2
    assert await world.claim(worker="w2") == []
    await world.commit(outcomes(leases[0], [0]), held=leases)
    assert len(await world.claim(worker="w2")) == 1, "a settled request makes room"
    assert await world.claim(worker="w2") == []


async def test_a_bound_is_rounded_up_to_a_chunk(world: StoreFixture) -> None:
    await bound(world, DEFAULT_ORGANIZATION, 11)
    await world.running(*[("m", 10)] * 5)
    assert len(await world.claim()) == 2


async def test_a_bound_of_nothing_starts_nothing(world: StoreFixture) -> None:
    await bound(world, DEFAULT_ORGANIZATION, 0)
    await world.running()
    assert await world.claim() == []
    await bound(world, DEFAULT_ORGANIZATION, None)
    assert len(await world.claim()) == 1


async def test_nobody_waits_behind_an_organization_at_its_bound(world: StoreFixture) -> None:
    """Its chunks fill the head of the queue, many times what one claim reads."""
    await bound(world, DEFAULT_ORGANIZATION, 1)
    await world.running(*[("m", 1)] * 100, priority=9)
    others = [await world.organization() for _ in range(3)]
    batches = [
        await world.running(("m", 1), ("m", 1), project=await world.project(f"q{n}", other.id))
        for n, other in enumerate(others)
    ]
    claimed = [lease.key.batch_id for lease in await world.claim(7)]
    theirs = [batch.id for batch in batches for _ in range(2)]
    assert [id for id in claimed if id in theirs] == theirs
    assert len(claimed) == 7, "and one of its own"
    assert await world.claim() == []


async def test_the_default_bound_is_for_organizations_without_their_own(
    world: StoreFixture,
) -> None:
    other = await world.organization(limits=OrganizationLimits(requests_in_flight=3))
    await world.project("q1", other.id)
    default = await world.running(*[("m", 1)] * 9)
    own = await world.running(*[("m", 1)] * 9, project="q1")
    leases = await world.store.work.claim_chunks(
        "w1", ("m",), 32, world.now, TTL_S, in_flight_max=2
    )
    batches = [lease.key.batch_id for lease in leases]
    assert (batches.count(default.id), batches.count(own.id)) == (2, 3)


async def test_a_bound_counts_all_models_and_workers(world: StoreFixture) -> None:
    await bound(world, DEFAULT_ORGANIZATION, 4)
    await world.running(("a", 2), ("b", 2), ("a", 2), ("b", 2))
    assert len(await world.claim(1, models=("a",), worker="w1")) == 1
    assert len(await world.claim(models=("b", "a"), worker="w2")) == 1
    assert await world.claim(models=("a", "b"), worker="w3") == []


async def test_chunks_that_come_back_make_room(world: StoreFixture) -> None:
    await bound(world, DEFAULT_ORGANIZATION, 1)
    await world.running(("m", 1), ("m", 1))
    lease = await world.claim_one()
    await world.commit(released=[lease])
    assert keys(await world.claim()) == [lease.key]
    world.pass_time(TTL_S)
    await world.store.work.reap(world.now)
    assert len(await world.claim(worker="w2")) == 1


async def test_claimers_at_once_keep_a_bound_together(world: StoreFixture) -> None:
    await bound(world, DEFAULT_ORGANIZATION, 5)
    await world.running(*[("m", 1)] * 40)
    claims = [world.claim(3, worker=f"w{number}") for number in range(10)]
    assert sum(len(leases) for leases in await asyncio.gather(*claims)) == 5
