"""A worker's part in the division of replicas: when it may send, and when it stops."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ownership_env import TTL_S, Fleet

from lowtide import limits
from lowtide.ports.store import StoreUnavailable
from lowtide.store.sql_store import SqlStore
from property_profiles import examples
from testkit.empty_database import place_empty_database
from testkit.sim.stores import Stores, sim_folder

BELIEF_S = TTL_S * (1 - limits.OWNERSHIP_MARGIN)
COMMIT_INTERVAL_S = TTL_S / limits.OWNERSHIP_HEARTBEATS


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    path = tmp_path / "lowtide.db"
    place_empty_database(path)
    store = SqlStore.sqlite(path)
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture
def harness(store: SqlStore) -> Fleet:
    return Fleet(store.ownership)


async def test_nothing_is_sent_before_the_first_tick_and_everything_after_it(
    harness: Fleet,
) -> None:
    a = harness.worker("a", begins_s=1000.0)
    assert a.sends_to == set()
    assert await a.tick() == pytest.approx(COMMIT_INTERVAL_S)
    assert a.sends_to == {"r0", "r1"}
    assert a.announced == 1, "the dispatcher looks for work at once"


async def test_a_worker_stops_sending_before_its_lease_is_over(harness: Fleet) -> None:
    a = harness.worker("a")
    await a.tick()
    harness.at_s = BELIEF_S - 0.1
    assert a.sends_to == {"r0", "r1"}
    harness.at_s = BELIEF_S
    assert a.sends_to == set()
    await a.tick()
    assert a.sends_to == {"r0", "r1"}, "nobody took them meanwhile"
    assert a.announced == 2


async def test_a_tick_just_before_the_heartbeat_is_due_is_not_asked_for_again_at_once(
    harness: Fleet,
) -> None:
    a = harness.worker("a")
    await a.tick()
    harness.at_s = COMMIT_INTERVAL_S - 1e-7  # less than an instant can say: the runner would spin
    assert await a.tick() > 0


async def test_a_heartbeat_that_failed_leaves_the_lease_to_run_out(
    harness: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = harness.worker("a")
    await a.tick()
    with monkeypatch.context() as patch:

        async def away(*_: object) -> None:
            raise StoreUnavailable("gone")

        patch.setattr(harness.store, "heartbeat", away)
        harness.at_s = COMMIT_INTERVAL_S
        with pytest.raises(StoreUnavailable):
            await a.tick()
        assert a.sends_to == {"r0", "r1"}
        harness.at_s = BELIEF_S
        assert a.sends_to == set()
    await a.tick()
    assert a.sends_to == {"r0", "r1"}


async def test_an_outage_of_the_database_makes_nobody_a_dead_worker(harness: Fleet) -> None:
    a, b = harness.worker("a"), harness.worker("b")
    await harness.settle(a, b)
    assert (len(a.sends_to), len(b.sends_to)) == (1, 1)
    before = a.sends_to
    await a.hear()  # it has seen b's last commit
    harness.at_s += 20 * TTL_S
    await a.tick()  # b was not able to beat, either
    assert a.sends_to == before
    assert len((await harness.store.fleet()).members) == 2


async def test_a_new_worker_gets_a_replica_when_the_last_call_on_it_has_ended(
    harness: Fleet,
) -> None:
    a, b = harness.worker("a"), harness.worker("b")
    await a.tick()
    for replica in a.replicas.values():
        replica.in_flight = 1
    await b.tick()
    assert b.sends_to == set()
    soon_s = await a.hear()
    assert soon_s <= limits.OWNERSHIP_IDLE_POLL_S
    (kept,) = a.sends_to
    (given,) = {"r0", "r1"} - {kept}
    await b.hear()
    assert b.sends_to == set(), "a call of a's is still in flight"

    a.replicas[given].in_flight = 0
    await a.tick()
    await b.hear()
    assert (a.sends_to, b.sends_to) == ({kept}, {given})
    assert a.retreats == [(frozenset({given}), frozenset({f"of {kept}"}))]


async def test_calls_that_do_not_end_are_aborted_after_a_bound(harness: Fleet) -> None:
    a, b = harness.worker("a"), harness.worker("b")
    await a.tick()
    for replica in a.replicas.values():
        replica.in_flight = 1
    await b.tick()
    began_s = harness.at_s
    while harness.at_s < began_s + limits.OWNERSHIP_YIELD_S:
        await a.hear()
        await b.hear()
        assert (a.retreats, b.sends_to) == ([], set())
        harness.at_s += COMMIT_INTERVAL_S
    await a.hear()
    ((urls, _),) = a.retreats
    await b.hear()
    assert b.sends_to == urls


async def test_a_replica_is_used_again_when_who_was_to_have_it_has_left(harness: Fleet) -> None:
    a, b = harness.worker("a"), harness.worker("b")
    await a.tick()
    for replica in a.replicas.values():
        replica.in_flight = 1
    await b.tick()
    await a.hear()
    assert len(a.sends_to) == 1
    await b.loop.leave()
    await a.hear()
    assert a.sends_to == {"r0", "r1"}
    assert a.retreats == []


async def test_a_dead_worker_s_replicas_are_taken_after_its_lease(harness: Fleet) -> None:
    a, b = harness.worker("a"), harness.worker("b", begins_s=5e6)
    await harness.settle(a, b)
    while harness.at_s < TTL_S:
        assert (len(a.sends_to | b.sends_to), len(b.sends_to)) == (2 if a.sends_to else 1, 1)
        again_s = await b.tick()
        harness.at_s += again_s
    await b.tick()
    assert harness.at_s <= TTL_S + 0.001, "b looks again at the instant when the lease is over"
    assert (a.sends_to, b.sends_to) == (set(), {"r0", "r1"})

    await a.hear()
    assert a.sends_to == set(), "it learns what it lost"
    await harness.settle(a, b)
    assert (len(a.sends_to), len(b.sends_to)) == (1, 1), "and gets its share again"


async def test_a_worker_that_drains_gives_back_each_replica_as_it_falls_idle(
    harness: Fleet,
) -> None:
    a, b = harness.worker("a"), harness.worker("b", "r0", "r1", "r2")
    await a.tick()
    a.replicas["r1"].in_flight = 1
    await b.tick()
    a.loop.drain()
    await a.tick()
    assert a.sends_to == set()
    await a.tick()
    await b.hear()
    assert b.sends_to == {"r0", "r2"}
    await a.loop.leave()
    await b.hear()
    assert b.sends_to == {"r0", "r1", "r2"}


async def test_a_worker_that_cannot_say_goodbye_leaves_all_the_same(
    harness: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = harness.worker("a")

    async def away(*_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(harness.store, "leave", away)
    await a.loop.leave()


@pytest.fixture(scope="module")
def fleet_stores() -> Iterator[Stores]:
    """SQLite in the caller's thread, its file in memory: a play is thousands of statements."""
    with sim_folder() as folder:
        yield Stores(folder)


SPELL = st.tuples(
    st.sampled_from(["a", "b", "c", "ab", "bc", "ac", "", "abc"]),  # who stands still
    st.integers(1, 9),  # for so many rounds
    st.sampled_from([0.05, 1.0, 5.0, 7.4, 12.0, 16.0]),  # of so many seconds
    st.sampled_from(["", "a", "b", "c"]),  # whose calls do not end
    st.sampled_from(["", "", "a", "b", "c", "abc"]),  # whose list lacks one replica from now on
)


@settings(max_examples=examples(60))
@given(
    st.lists(SPELL, min_size=3, max_size=8),
    st.tuples(*[st.floats(0.96, 1.04)] * 3),
    st.sampled_from(["abc", "cab", "bca"]),
)
def test_no_two_workers_ever_send_to_one_replica(
    fleet_stores: Stores,
    spells: list[tuple[str, int, float, str, str]],
    rates: tuple[float, float, float],
    order: str,
) -> None:
    """Some stand still for minutes, no clock agrees with another, and lists differ."""

    async def play(store: SqlStore) -> None:
        await store.open()
        harness = Fleet(store.ownership)
        names = ("r0", "r1", "r2")
        workers = {
            who: harness.worker(who, *names, begins_s=1e4 * place, rate=rate)
            for place, (who, rate) in enumerate(zip("abc", rates, strict=True))
        }
        for still, rounds, round_s, busy, lacks in spells:
            for who, worker in workers.items():
                worker.relist(*(names[:-1] if who in lacks else names))
            for _ in range(rounds):
                for who in order:
                    if who not in still:
                        await workers[who].hear()
                    for replica in workers[who].replicas.values():
                        replica.in_flight = int(who in busy)
                for _ in range(8):  # a belief may end within a round
                    sending = [worker.sends_to for worker in workers.values()]
                    assert sum(map(len, sending)) == len(set().union(*sending)), harness.at_s
                    harness.at_s += round_s / 8
        await store.aclose()

    fleet_stores.renew()
    asyncio.run(play(fleet_stores.of(0)))
