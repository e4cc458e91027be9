"""Workers, clients and sweepers at once on one PostgreSQL: nobody waits in a circle, sums agree."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from lowtide.core.accounts.money import ModelPrices, UnitPrices
from lowtide.core.accounts.tenancy import OrganizationLimits
from lowtide.core.batches.batch import Batch
from lowtide.store.sql_store import SqlStore
from testkit.patience import PATIENCE_S
from testkit.postgres import PostgresServer
from testkit.store_fixture import PER_ANSWER, TTL_S, StoreFixture, outcomes

WORKERS = 8
ROUNDS = 15
BATCHES = 12
PRICE = UnitPrices(3, 2, 1)


@pytest.fixture
async def worlds(postgres_url: str) -> AsyncIterator[list[StoreFixture]]:
    """Two processes' views of one database."""
    stores = [SqlStore(postgres_url), SqlStore(postgres_url)]
    yield [StoreFixture(store) for store in stores]
    for store in stores:
        await store.aclose()


async def work(world: StoreFixture, name: str, random: Random) -> None:
    """Claim, commit, give back, now and then twice, and now and then from an old lease."""
    old = []
    for _ in range(ROUNDS):
        leases = await world.claim(random.randrange(1, 6), worker=name)
        random.shuffle(leases)
        half = [outcomes(lease, range(2)) for lease in leases if lease.done[0] == 0]
        beat = world.beat(*half, held=leases, worker=name)
        for _ in range(random.randrange(1, 3)):
            await world.store.work.commit_group(beat)
        rest = [outcomes(lease, range(2, 4)) for lease in leases[::2] if lease.done[0] == 0]
        await world.commit(*rest, released=leases[1::2], worker=name)
        await world.commit(held=[*old, *leases], worker=name)
        old = leases


async def disturb(
    world: StoreFixture, batches: list[Batch], random: Random, *, pauses: bool
) -> None:
    """What everybody else does to those batches meanwhile, which may be a pause by a spend cap."""
    store, now = world.store, world.now
    for _ in range(ROUNDS):
        match random.randrange(7 if pauses else 6):
            case 0:
                await store.batches.cancel("p1", random.choice(batches[:3]).id, now)
            case 1:
                await store.work.reap(now)
            case 2:
                await store.work.release_worker(f"w{random.randrange(WORKERS)}")
            case 3:
                await store.results.sweep(now, segments_keep_s=0)
            case 4:
                await store.lifecycle.expire_due(now)
            case 5:
                if lease := await store.lifecycle.claim_assembly("a", now, TTL_S):
                    await store.lifecycle.release_task(lease)
            case 6:
                cap = random.choice([0, 100_000, None])
                await store.tenants.change_organization(
                    "org_default", limits=OrganizationLimits(), spend_cap_pico=cap, now=now
                )
        await store.ledger.unpause(now)


@pytest.mark.parametrize("seed", [1, 2])
async def test_nobody_waits_in_a_circle_and_the_sums_agree(
    worlds: list[StoreFixture], postgres: PostgresServer, postgres_url: str, seed: int
) -> None:
    await everybody_at_once(worlds, seed, pauses=False)
    assert await deadlocks(worlds, postgres, postgres_url) == 0


async def test_the_sums_agree_where_a_pause_locks_its_batches_late(
    worlds: list[StoreFixture],
) -> None:
    # It meets others' locks in the other order now and then, and is repeated: how often is chance.
    await everybody_at_once(worlds, 1, pauses=True)


async def everybody_at_once(worlds: list[StoreFixture], seed: int, *, pauses: bool) -> None:
    """Workers and disturbances on one set of batches; afterwards every sum must agree."""
    one, two = worlds
    for world in worlds:
        world.prices = {"m": ModelPrices(live=PRICE, batch=PRICE)}
    batches = [await one.running(*[("m", 4)] * 30) for _ in range(BATCHES)]
    two._number = one._number  # ids of segments are fresh over both
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as everybody:
        for number in range(WORKERS):
            world = worlds[number % 2]
            everybody.create_task(work(world, f"w{number}", Random(f"{seed} {number}")))
        for number in range(2):
            random = Random(f"{seed} disturbed {number}")
            everybody.create_task(disturb(worlds[number], batches, random, pauses=pauses))
    charged = 0
    for batch in batches:
        seen = await one.see(batch)
        rows = await one.store.results.slices(batch.id)
        assert [row.seq for row in rows] == list(range(len(rows)))
        assert sum(row.completed for row in rows) == seen.counts.completed
        assert seen.usage.input_tokens == PER_ANSWER.input_tokens * seen.counts.completed
        entries = await one.store.ledger.entries(batch.id)
        assert sum(entry.requests for entry in entries) == seen.counts.completed
        charged += sum(entry.charge_pico for entry in entries)
    month = one.now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert charged > 0
    assert await one.store.ledger.spent_pico("org_default", month) == charged


async def deadlocks(worlds: list[StoreFixture], postgres: PostgresServer, url: str) -> int:
    """As the server has counted them; a connection tells its counts when it ends."""
    for world in worlds:
        await world.store.aclose()
    name = url.partition("@/")[2].partition("?")[0]
    stats = f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'"
    return int(postgres.sql(stats))
