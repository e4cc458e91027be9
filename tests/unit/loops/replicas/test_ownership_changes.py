"""A worker's part in the division of replicas when its list of them changes at run time."""

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from pathlib import Path

import pytest
from ownership_env import Fleet, Worker

from lowtide.core.dispatch.replica import Replica
from lowtide.store.sql_store import SqlStore
from testkit.empty_database import place_empty_database


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Fleet]:
    path = tmp_path / "lowtide.db"
    place_empty_database(path)
    store = SqlStore.sqlite(path)
    await store.open()
    yield Fleet(store.ownership)
    await store.aclose()


def relist(worker: Worker, *names: str) -> None:
    """As the replica set tells it."""
    for name in names:
        if name not in worker.replicas:
            worker.replicas[name] = Replica(name, frozenset({f"of {name}"}), 4)
    worker.loop.replicas_changed({name: worker.replicas[name] for name in names}, ())


async def test_a_replica_that_is_listed_later_is_used_once_it_was_claimed(harness: Fleet) -> None:
    a = harness.worker("a", "r0")
    await a.tick()
    relist(a, "r0", "r1")
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
    relist(a, "r0")
    await a.tick()
    await b.hear()
    assert (a.sends_to, b.sends_to) == ({"r0"}, set())
    a.replicas["r1"].in_flight = 0
    await a.tick()
    await b.hear()
    assert (a.sends_to, b.sends_to) == ({"r0"}, {"r1"})
    assert a.retreats == [(frozenset({"r1"}), frozenset({"of r0"}))]


async def test_one_that_comes_back_before_it_was_given_back_is_used_again(harness: Fleet) -> None:
    a = harness.worker("a", "r0")
    await a.tick()
    a.replicas["r0"].in_flight = 1
    relist(a)
    await a.tick()
    assert a.sends_to == set()
    relist(a, "r0")
    await a.tick()
    assert a.sends_to == {"r0"} and a.retreats == []


async def test_a_worker_that_drains_claims_nothing_of_a_new_list(harness: Fleet) -> None:
    a = harness.worker("a", "r0")
    await a.tick()
    a.loop.drain()
    relist(a, "r0", "r1")
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
        relist(a, "r0")
        return await claim(worker_id, names, now)

    relist(a, "r0", "r1")
    with monkeypatch.context() as patched:
        patched.setattr(harness.store, "claim", slow)
        await a.tick()
    for _ in range(3):
        await a.hear()
        await b.hear()
    assert (a.sends_to, b.sends_to) == ({"r0"}, {"r1"})
