"""Contract of the ledger: what a commit stores is charged, once, exactly, and nothing else is."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from lowtide.core.accounts.ledger import Cost, LedgerEntry, UsageRow
from lowtide.core.accounts.money import FREE, ModelPrices, UnitPrices, model_prices
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.segment import Slice
from lowtide.core.usage import NO_USAGE, Usage
from testkit.store_fixture import NOON, PER_ANSWER, TTL_S, StoreFixture, outcomes

M = model_prices(Decimal("3"), Decimal("0.3"), Decimal("15"), Decimal("0.5"))
N = model_prices(Decimal("0.18"), None, Decimal("0.59"), Decimal("0.25"))
PER_M = 6 * 1_500_000 + 4 * 150_000 + 5 * 7_500_000
"""Pico-dollars of an answer of model m: 6 fresh, 4 cached and 5 output tokens, at half price."""
YEARS = {"since": datetime(2020, 1, 1, tzinfo=UTC), "until": datetime(2030, 1, 1, tzinfo=UTC)}


def times(count: int) -> Usage:
    return sum([PER_ANSWER] * count, NO_USAGE)


def cost(count: int, prices: ModelPrices = M) -> Cost:
    usage = times(count)
    return Cost(count, usage, prices.batch.charge(usage), prices.live.charge(usage))


@pytest.fixture
def world(world: StoreFixture) -> StoreFixture:
    world.prices = {"m": M, "n": N}
    return world


async def check_sums(world: StoreFixture, batch: Batch) -> Cost:
    """The running sum of the batch is the sum of its entries; the month's is that of all."""
    entries = await world.store.ledger.entries(batch.id)
    total = Cost()
    for entry in entries:
        assert entry.charge_pico == entry.batch_prices.charge(entry.usage)
        live = entry.live_prices.charge(entry.usage)
        total += Cost(entry.requests, entry.usage, entry.charge_pico, live)
    found = await world.store.ledger.cost([batch.id])
    assert found == ({batch.id: total} if entries else {})
    return total


# ---- what is charged


async def test_the_cost_by_model_is_the_sum_of_its_entries_at_each_price(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 4), ("n", 4), ("m", 4))
    other = await world.running(("m", 2), project="p2")
    assert await world.store.ledger.cost_by_model(batch.id) == {}
    leases = [
        each for each in await world.claim(models=("m", "n")) if each.key.batch_id == batch.id
    ]
    await world.commit(*(outcomes(lease, [0, 1]) for lease in leases), held=leases)
    world.prices = {"m": N, "n": N}
    await world.commit(*(outcomes(lease, [2]) for lease in leases), held=leases)
    found = await world.store.ledger.cost_by_model(batch.id)
    assert found == {"m": cost(4) + cost(2, N), "n": cost(2, N) + cost(1, N)}
    assert sum(found.values(), Cost()) == await check_sums(world, batch)
    assert await world.store.ledger.cost_by_model(other.id) == {}


async def test_a_beat_charges_each_model_of_each_batch_once(world: StoreFixture) -> None:
    one = await world.running(("m", 4), ("n", 4), ("m", 4))
    two = await world.running(("m", 2), project="p2")
    leases = await world.claim(models=("m", "n"))
    await world.commit(
        outcomes(leases[0], [0, 1, 2], failed=[2]),
        *(outcomes(lease, [0, 1]) for lease in leases[1:]),
        held=leases,
    )
    assert await world.store.ledger.entries(one.id) == [
        LedgerEntry(
            batch_id=one.id,
            model=model,
            seq=0,
            organization_id=DEFAULT_ORGANIZATION,
            project_id="p1",
            at=world.now,
            requests=requests,
            usage=times(requests),
            live_prices=prices.live,
            batch_prices=prices.batch,
            discount=prices.discount,
            charge_pico=prices.batch.charge(times(requests)),
        )
        for model, requests, prices in (("m", 4, M), ("n", 2, N))
    ]
    assert await world.store.ledger.cost([one.id, two.id, "batch_unknown"]) == {
        one.id: cost(4) + cost(2, N),
        two.id: cost(2),
    }
    assert (await check_sums(world, two)).charge_pico == 2 * PER_M


async def test_each_beat_writes_its_own_entries_at_the_prices_of_its_moment(
    world: StoreFixture,
) -> None:
    batch = await world.running(("m", 4))
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [0, 1]), held=[lease])
    world.prices = {"m": N}
    world.pass_time(1)
    await world.commit(outcomes(lease, [2]), held=[lease])
    world.prices = {}
    await world.commit(outcomes(lease, [3]))
    entries = await world.store.ledger.entries(batch.id)
    assert [(e.seq, e.requests, e.batch_prices, e.discount) for e in entries] == [
        (0, 2, M.batch, M.discount),
        (1, 1, N.batch, N.discount),
        (2, 1, FREE.batch, FREE.discount),
    ]
    assert await check_sums(world, batch) == cost(2) + cost(1, N) + cost(1, FREE)


async def test_failures_cost_nothing(world: StoreFixture) -> None:
    batch = await world.running(("m", 4))
    await world.settle(await world.claim_one(), failed=4)
    assert await world.store.ledger.entries(batch.id) == []
    assert await world.store.ledger.cost([batch.id]) == {}
    ended = await world.assemble(batch)
    assert ended.counts.failed == 4
    assert await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, NOON) == 0


async def test_a_repeated_beat_is_charged_once(world: StoreFixture) -> None:
    batch = await world.running(("m", 4))
    lease = await world.claim_one()
    beat = world.beat(outcomes(lease, [0, 1]), held=[lease])
    await asyncio.gather(*(world.store.work.commit_group(beat) for _ in range(5)))
    dearer = msgspec.structs.replace(beat, prices={"m": N})
    await world.store.work.commit_group(dearer)
    assert await check_sums(world, batch) == cost(2)
    assert await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, NOON) == 2 * PER_M


async def test_what_is_lost_or_refused_is_not_charged(world: StoreFixture) -> None:
    batch = await world.running(("m", 4), ("m", 4))
    lost, lease = await world.claim()
    world.pass_time(TTL_S - 1)
    await world.commit(held=[lease])
    world.pass_time(1)
    await world.store.work.reap(world.now)
    await world.commit(outcomes(lost), outcomes(lease, [0]), held=[lease])
    assert await check_sums(world, batch) == cost(1)
    await world.commit(outcomes(lease, [0, 1]), held=[lease])
    assert await check_sums(world, batch) == cost(1), "it repeats a request"


@pytest.mark.parametrize("event", ["cancel", "expire"])
async def test_a_stopped_batch_pays_for_what_finished(world: StoreFixture, event: str) -> None:
    batch = await world.running(("m", 4), ("m", 4), window_s=3600)
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [0]), held=[lease])
    if event == "cancel":
        await world.store.batches.cancel("p1", batch.id, world.now)
    else:
        world.pass_time(3600)
        await world.store.lifecycle.expire_due(world.now)
    await world.commit(outcomes(lease, [1], failed=[]), released=[lease])
    ended = await world.assemble(batch)
    assert await check_sums(world, ended) == cost(2)
    assert ended.usage == times(2)


async def test_charges_beyond_64_bits_stay_exact(world: StoreFixture) -> None:
    """9.2 million dollars in pico-dollars is where a database's whole numbers end."""
    dear = UnitPrices(input=3 * 10**16 + 1, cached=7, output=10**17 + 3)
    world.prices = {"m": ModelPrices(live=UnitPrices(2**62, 1, 2**62), batch=dear)}
    batch = await world.running(("m", 100))
    lease = await world.claim_one()
    for index in range(40):
        await world.commit(outcomes(lease, [index]), held=[lease])
    expected = Cost(
        40,
        times(40),
        40 * (6 * dear.input + 4 * 7 + 5 * dear.output),
        40 * (11 * 2**62 + 4),
    )
    assert expected.charge_pico > 2**63
    assert await check_sums(world, batch) == expected
    assert await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, NOON) == expected.charge_pico
    month = NOON.replace(day=1, hour=0)
    assert await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, month) == expected.charge_pico
    (row,) = await world.store.ledger.usage(**YEARS, group_by=[])
    assert row == UsageRow(None, None, None, expected)


# ---- sums


async def spend(
    world: StoreFixture, *, project: str = "p1", model: str = "m", requests: int = 1
) -> None:
    """A batch of one chunk that succeeds."""
    await world.running((model, requests), project=project)
    await world.settle(await world.claim_one(models=(model,)))


async def test_usage_is_summed_by_day_model_and_project(world: StoreFixture) -> None:
    await spend(world)
    await spend(world, project="p2", model="n", requests=2)
    world.now = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    await spend(world, requests=3)
    world.now = datetime(2026, 3, 2, tzinfo=UTC)
    world.prices = {"m": N}
    await spend(world, requests=4)
    usage = world.store.ledger.usage
    first, second = date(2026, 3, 1), date(2026, 3, 2)
    assert await usage(**YEARS, group_by=["day"]) == [
        UsageRow(first, None, None, cost(4) + cost(2, N)),
        UsageRow(second, None, None, cost(4, N)),
    ]
    assert await usage(**YEARS, group_by=["model"]) == [
        UsageRow(None, "m", None, cost(4) + cost(4, N)),
        UsageRow(None, "n", None, cost(2, N)),
    ], "one row a model, whatever its prices were"
    assert await usage(**YEARS, group_by=["project", "day"]) == [
        UsageRow(first, None, "p1", cost(4)),
        UsageRow(second, None, "p1", cost(4, N)),
        UsageRow(first, None, "p2", cost(2, N)),
    ]
    assert await usage(**YEARS, group_by=[], project_id="p2") == [
        UsageRow(None, None, None, cost(2, N))
    ]


async def test_usage_counts_from_since_until_before_until(world: StoreFixture) -> None:
    for _ in range(3):
        await spend(world)
        world.pass_time(60)
    usage = world.store.ledger.usage
    minute = timedelta(seconds=60)
    for since, until, count in (
        (NOON, NOON + minute, 1),
        (NOON, NOON + 2 * minute, 2),
        (NOON + timedelta(microseconds=1), NOON + 3 * minute, 2),
    ):
        (row,) = await usage(since=since, until=until, group_by=[])
        assert row.cost == cost(count)
    assert await usage(since=NOON + 3 * minute, until=NOON + 4 * minute, group_by=[]) == []


async def test_usage_of_one_organization_is_not_anothers(world: StoreFixture) -> None:
    other = await world.organization()
    await world.project("q1", other.id)
    await spend(world)
    await spend(world, project="q1", requests=5)
    usage = world.store.ledger.usage
    (row,) = await usage(**YEARS, group_by=["project"], organization_id=other.id)
    assert row == UsageRow(None, None, "q1", cost(5))
    assert await usage(**YEARS, group_by=["day"], organization_id="org_unknown") == []
    mixed = {"organization_id": other.id, "project_id": "p1"}
    assert await usage(**YEARS, group_by=["day"], **mixed) == []
    assert len(await usage(**YEARS, group_by=["project"])) == 2


async def test_what_was_spent_is_summed_from_any_instant(world: StoreFixture) -> None:
    instants = [
        datetime(2026, 1, 31, 23, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
        datetime(2026, 2, 27, tzinfo=UTC),
        datetime(2026, 12, 31, 23, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    ]
    for at in instants:
        world.now = at
        await spend(world)
        await spend(world)
    for since in [*instants, datetime(2026, 2, 15, 8, 30, tzinfo=UTC)]:
        spent = await world.store.ledger.spent_pico(DEFAULT_ORGANIZATION, since)
        assert spent == 2 * PER_M * sum(at >= since for at in instants), since
    assert await world.store.ledger.spent_pico("org_unknown", NOON) == 0


async def test_an_answer_without_usage_is_an_entry_without_charge(world: StoreFixture) -> None:
    batch = await world.running(("m", 2))
    lease = await world.claim_one()
    silent = msgspec.structs.replace(outcomes(lease), usage=NO_USAGE)
    assert isinstance(silent, Slice)
    await world.commit(silent)
    (entry,) = await world.store.ledger.entries(batch.id)
    assert (entry.requests, entry.charge_pico) == (2, 0)
    assert await check_sums(world, batch) == Cost(requests=2)
