"""A worker's part in the division of replicas when its list of them changes at run time."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime

import pytest
from ownership_env import Fleet, Worker

from lowtide import limits
from lowtide.core.replicas.replica_assignment import Fleet as Seen
from lowtide.core.replicas.replica_assignment import Member
from lowtide.store.sql_store import SqlStore


@pytest.fixture
async def harness(store_url: str) -> AsyncIterator[Fleet]:
    store = SqlStore(store_url)
    await store.open()
    yield Fleet(store.ownership)
    await store.aclose()


async def test_a_replica_that_is_listed_later_is_used_once_it_was_claimed(harness: Fleet) -> None:
    a = harness.worker("a", "r0")
    await a.tick()
    a.relist("r0", "r1")
    assert a.sends_to == {"r0"}, "another worker may have it"
    await a.tick()
    assert a.sends_to == {"r0", "r1"}
    assert a.announced == 2


async def test_a_replica_that_is_listed_no_more_is_given_back_once_it_is_idle(
    harness: Fleet,
) -> None:
    a, b = harness.worker("a", "r0", "r1"), harness.worker("b", "r1")
    await a.tick()
    a.replicas["r1"].in_flight = 1
    a.relist("r0")
    await a.tick()
    await b.hear()
    assert (a.sends_to, b.sends_to) == ({"r0"}, set())
    a.replicas["r1"].in_flight = 0
    harness.at_s += limits.OWNERSHIP_LEFT_S
    await a.tick()
    await b.hear()
    assert (a.sends_to, b.sends_to) == ({"r0"}, {"r1"})
    assert a.retreats == [(frozenset({"r1"}), frozenset({"of r0"}))]


async def test_one_that_comes_back_before_it_was_given_back_is_used_again(harness: Fleet) -> None:
    a = harness.worker("a", "r0")
    await a.tick()
    a.replicas["r0"].in_flight = 1
    a.relist()
    await a.tick()
    assert a.sends_to == set()
    a.relist("r0")
    await a.tick()
    assert a.sends_to == {"r0"} and a.retreats == []


async def test_a_worker_that_drains_claims_nothing_of_a_new_list(harness: Fleet) -> None:
    a = harness.worker("a", "r0")
    await a.tick()
    a.loop.drain()
    a.relist("r0", "r1")
    await a.tick()
    await a.tick()
    assert a.sends_to == set()


async def test_one_that_leaves_the_list_while_it_is_claimed_is_given_back_and_stops_nothing(
    harness: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = harness.worker("a", "r0"), harness.worker("b", "r1")
    await a.tick()
    claim = harness.store.claim

    async def slow(worker_id: str, names: Iterable[str], now: datetime) -> Mapping[str, int]:
        a.relist("r0")
        return await claim(worker_id, names, now)

    a.relist("r0", "r1")
    with monkeypatch.context() as patched:
        patched.setattr(harness.store, "claim", slow)
        await a.tick()
    await harness.settle(a, b)
    harness.at_s += limits.OWNERSHIP_LEFT_S
    await harness.settle(a, b)
    assert (a.sends_to, b.sends_to) == ({"r0"}, {"r1"})


async def _one_that_left(harness: Fleet) -> tuple[Worker, Worker, str, str]:
    """Two workers with an engine each: `a`, whose engine just left its own list, and `b`, which
    still lists both; then that engine and the other one."""
    a, b = harness.worker("a"), harness.worker("b")
    await harness.settle(a, b)
    (left,) = a.sends_to
    (other,) = b.sends_to
    a.relist(other)
    await harness.settle(a, b)
    return a, b, left, other


async def test_an_engine_that_left_is_not_claimed_by_a_worker_whose_list_is_older(
    harness: Fleet,
) -> None:
    a, b, left, other = await _one_that_left(harness)
    assert (a.sends_to, b.sends_to) == (set(), {other})
    owner = (await harness.store.fleet()).owners[left]
    assert owner is not None and owner.worker_id == "a", "it is kept, and idle"
    b.relist(other)
    await harness.settle(b, a)
    assert left not in (await harness.store.fleet()).owners, "nobody lists it any more"


async def test_a_worker_that_goes_on_listing_what_left_another_s_list_gets_it_soon(
    harness: Fleet,
) -> None:
    a, b, left, other = await _one_that_left(harness)
    harness.at_s += limits.OWNERSHIP_LEFT_S - 0.01
    await harness.settle(a, b)
    assert b.sends_to == {other}
    harness.at_s += 0.01
    await harness.settle(a, b)
    assert (a.sends_to, b.sends_to) == ({other}, {left})


async def test_a_worker_that_drains_keeps_nothing_from_the_others(harness: Fleet) -> None:
    a, b = harness.worker("a"), harness.worker("b")
    await harness.settle(a, b)
    a.loop.drain()
    await harness.settle(a, b)
    assert (a.sends_to, b.sends_to) == (set(), {"r0", "r1"})


def during_heartbeat(
    monkeypatch: pytest.MonkeyPatch, harness: Fleet, happens: Callable[[], None]
) -> None:
    """Has something happen after the database has answered and before the worker has heard it."""
    heartbeat = harness.store.heartbeat

    async def slow(member: Member, now: datetime) -> Seen:
        seen = await heartbeat(member, now)
        happens()
        return seen

    monkeypatch.setattr(harness.store, "heartbeat", slow)


async def test_one_that_leaves_the_list_during_a_heartbeat_gets_no_call_more(
    harness: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = harness.worker("a")
    await a.tick()
    a.replicas["r1"].in_flight = 1
    with monkeypatch.context() as patched:
        during_heartbeat(patched, harness, lambda: a.relist("r0"))
        again_s = await a.hear()
    assert a.sends_to == {"r0"}
    assert again_s <= limits.OWNERSHIP_IDLE_POLL_S, "its leaving is still to be told"
    a.replicas["r1"].in_flight = 0
    await a.tick()
    await a.tick()
    assert (await harness.store.fleet()).owners.keys() == {"r0"}


async def test_what_is_announced_during_a_heartbeat_is_looked_at_after_it(
    harness: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = harness.worker("a")
    await a.tick()
    with monkeypatch.context() as patched:
        during_heartbeat(patched, harness, a.loop.announce)
        again_s = await a.hear()
    assert again_s < 0.001
    assert await a.tick() > 1, "and once"


async def test_one_that_leaves_the_list_during_a_heartbeat_is_not_claimed(
    harness: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = harness.worker("a", "r0")
    await a.tick()
    a.relist("r0", "r1")
    with monkeypatch.context() as patched:
        during_heartbeat(patched, harness, lambda: a.relist("r0"))
        await a.tick()
    owners = (await harness.store.fleet()).owners
    assert owners["r1"] is None
