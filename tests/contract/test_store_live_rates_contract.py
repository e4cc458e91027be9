"""The contract of `ports.live_rates.LiveRateStore`."""

import asyncio
from datetime import datetime, timedelta

import pytest

from lowtide.core.accounts.shared_pool import Need, Pool, PoolReport
from lowtide.limits import LIVE_POOL_KEEP_S, LIVE_SHARE_GONE_S
from lowtide.ports.live_rates import LiveRateStore
from lowtide.ports.store import Store
from lowtide.store.sql_store import SqlStore
from testkit.store_fixture import NOON

LONG_AGO = NOON - timedelta(days=1)
POOL, OTHER = ("key_1", "Größe/☂"), ("key_2", "m")


def after(seconds: float) -> dict[str, datetime]:
    return {"now": NOON + timedelta(seconds=seconds), "since": LONG_AGO}


def report(
    returned: float, asked: float, limit: int = 60, name: tuple[str, str] = POOL
) -> PoolReport:
    need = Need(capacity=limit, returned=returned, asked=asked, largest=min(asked, 1.0))
    return PoolReport(name, need, None)


@pytest.fixture
def rates(store: Store) -> LiveRateStore:
    return store.live_rates


async def test_what_one_process_took_is_not_there_for_the_next(rates: LiveRateStore) -> None:
    await rates.exchange("a", [], **after(0))
    first = await rates.exchange("b", [report(-10, 20)], **after(0))
    assert first.processes == 2
    assert first.taken == {POOL: {"requests": 20.0}}
    assert first.changed == {POOL: Pool(NOON, 30.0, None)}
    second = await rates.exchange("a", [report(0, 60)], **after(0))
    assert second.taken == {POOL: {"requests": 15.0}}  # no more than half of what is left
    third = await rates.exchange("b", [report(20, 0)], **after(0))
    assert third.changed[POOL] == Pool(NOON, 35.0, None)


async def test_a_pool_fills_by_the_time_that_passed(rates: LiveRateStore) -> None:
    await rates.exchange("a", [report(-60, 0)], **after(0))
    assert (await rates.read(**after(9))).changed == {POOL: Pool(NOON, 0.0, None)}
    exchanged = await rates.exchange("a", [report(0, 0)], **after(10))
    assert exchanged.changed[POOL].requests == 10.0
    exchanged = await rates.exchange(
        "a", [report(0, 0)], **after(9)
    )  # a clock that is a little behind
    assert exchanged.changed[POOL] == Pool(NOON + timedelta(seconds=10), 10.0, None)
    exchanged = await rates.exchange("a", [report(0, 0)], **after(1))  # and one that was far ahead
    assert exchanged.changed[POOL] == Pool(NOON + timedelta(seconds=1), 10.0, None)


async def test_only_pools_that_changed_since_are_told(rates: LiveRateStore) -> None:
    await rates.exchange("a", [report(-1, 0)], **after(0))
    await rates.exchange("a", [report(-1, 0, name=OTHER)], **after(5))
    since = NOON + timedelta(seconds=5)
    exchanged = await rates.read(since=since, now=since)
    assert list(exchanged.changed) == [OTHER]
    exchanged = await rates.exchange("a", [report(0, 0)], since=since, now=since)
    assert sorted(exchanged.changed) == [POOL, OTHER]


async def test_a_pool_that_is_full_again_is_forgotten(rates: LiveRateStore) -> None:
    await rates.exchange("a", [report(-600, 0)], **after(0))
    await rates.exchange("a", [], **after(LIVE_POOL_KEEP_S))
    assert POOL in (await rates.read(**after(LIVE_POOL_KEEP_S))).changed
    exchanged = await rates.exchange("a", [], **after(LIVE_POOL_KEEP_S + 1))
    assert exchanged.changed == {}


async def test_a_process_that_stopped_gave_back_what_it_held(rates: LiveRateStore) -> None:
    await rates.exchange("a", [], **after(0))
    await rates.exchange("b", [report(0, 30)], **after(0))
    await rates.leave("b", [report(25, 0)], NOON)
    exchanged = await rates.read(**after(0))
    assert (exchanged.processes, exchanged.changed) == (1, {POOL: Pool(NOON, 55.0, None)})


async def test_a_process_that_died_counts_no_more_after_a_time(rates: LiveRateStore) -> None:
    await rates.exchange("a", [], **after(0))
    await rates.exchange("b", [report(0, 30)], **after(0))
    exchanged = await rates.exchange("a", [report(0, 60)], **after(LIVE_SHARE_GONE_S))
    assert exchanged.processes == 2
    exchanged = await rates.exchange("a", [report(0, 60)], **after(LIVE_SHARE_GONE_S + 1))
    assert exchanged.processes == 1
    assert (await rates.read(**after(LIVE_SHARE_GONE_S + 30))).processes == 1


async def test_a_look_writes_nothing_down(rates: LiveRateStore) -> None:
    exchanged = await rates.read(**after(0))
    assert (exchanged.processes, exchanged.taken, exchanged.changed) == (1, {}, {})
    assert (await rates.exchange("a", [], **after(0))).processes == 1


async def test_processes_that_report_at_once_share_one_pool(
    store_url: str, rates: LiveRateStore
) -> None:
    other = SqlStore(store_url)
    places = [rates, other.live_rates] * 3
    try:
        for number in range(len(places)):
            await rates.exchange(f"p{number}", [], **after(0))
        many = [PoolReport((f"key_{n}", "m"), report(0, 60).requests, None) for n in range(300)]
        exchanged = await asyncio.gather(
            *(
                place.exchange(f"p{number}", [report(0, 60), *many], **after(0))
                for number, place in enumerate(places)
            )
        )
    finally:
        await other.aclose()
    for name in (POOL, *(each.name for each in many)):
        taken = [each.taken[name]["requests"] for each in exchanged]
        assert sorted(taken, reverse=True) == [30.0, 15.0, 7.5, 3.75, 1.875, 1.0]
    assert (await rates.read(**after(0))).changed[POOL].requests == 60 - 59.125
