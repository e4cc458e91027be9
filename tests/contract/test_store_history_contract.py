"""Contract of HistoryStore: looks add up, notes stay, and what is old goes."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from lowtide import limits
from lowtide.core.accounts.money import model_prices
from lowtide.core.accounts.tenancy import OrganizationLimits
from lowtide.core.history.batch_history import NOTHING, BatchTotals
from lowtide.core.history.replica_history import ReplicaPart, ReplicaRow, bucket_begin
from lowtide.ports.history import HistoryStore
from lowtide.ports.steering import BatchChange
from lowtide.ports.store import Store
from lowtide.store.sql_store import SqlStore
from testkit.statements import statements
from testkit.store_fixture import DAY_S, NOON, TTL_S, StoreFixture, outcomes


@pytest.fixture
def history(store: Store) -> HistoryStore:
    return store.history


async def done_in(history: HistoryStore, batch_id: str) -> BatchTotals:
    found, total = await history.of_batch(batch_id), NOTHING
    for bucket in found.buckets if found is not None else ():
        total = total.plus(bucket.done)
    return total


# ---- rates


async def test_looks_add_up_to_what_commits_have_counted(
    world: StoreFixture, history: HistoryStore
) -> None:
    batch = await world.running(("m", 4), ("m", 4))
    assert await history.of_batch(batch.id) is None
    assert await history.advance([batch.id, "batch_unknown"], world.now) == 0, "nothing is done yet"
    first, second = await world.claim()
    world.pass_time(10)
    await world.settle(first, failed=1)
    assert await history.advance([batch.id], world.now) == 1
    assert await history.advance([batch.id], world.now) == 0, "it has not moved since"
    world.pass_time(10)
    await world.settle(second)
    assert await history.advance([batch.id], world.now) == 1
    assert await done_in(history, batch.id) == BatchTotals(7, 1, 70, 35)
    found = await history.of_batch(batch.id)
    assert found is not None and found.begun_at == batch.in_progress_at
    assert (found.seen_at, found.seen) == (world.now, BatchTotals(7, 1, 70, 35))
    assert [bucket.index for bucket in found.buckets] == [0, 1, 2, 3]


async def test_two_workers_that_look_at_once_count_nothing_twice(
    world: StoreFixture, history: HistoryStore, store_url: str
) -> None:
    batches = [await world.running(("m", 4)) for _ in range(3)]
    for lease in await world.claim():
        await world.settle(lease)
    ids = [batch.id for batch in batches]
    other = SqlStore(store_url)
    try:
        await asyncio.gather(
            *(
                place.advance(order, world.now + timedelta(seconds=number))
                for number in range(3)
                for place, order in ((history, ids), (other.history, ids[::-1]))
            )
        )
    finally:
        await other.aclose()
    for batch_id in ids:
        assert (await done_in(history, batch_id)).completed == 4


async def test_a_history_and_its_pauses_are_read_in_one_statement(
    world: StoreFixture, history: HistoryStore
) -> None:
    moved, held, quiet = [await world.running(("m", 4), ("m", 4)) for _ in range(3)]
    lease = next(each for each in await world.claim() if each.key.batch_id == moved.id)
    await world.settle(lease)
    await history.advance([moved.id], world.now)
    for batch in (moved, held):
        await world.store.steering.hold(batch.project_id, batch.id, "user", "finish", world.now)
        world.pass_time(1)
        await world.store.steering.lift(batch.project_id, batch.id, "user", world.now)
    with statements() as asked:
        paces = await history.paces([moved.id, held.id, quiet.id, "batch_unknown"])
    assert len([each for each in asked if "batch_history" in each or "batch_notes" in each]) == 1
    assert paces[moved.id].history == await history.of_batch(moved.id) is not None
    assert paces[held.id].history is None
    told = [[each.kind for each in paces[batch.id].pauses] for batch in (moved, held)]
    assert told == [["paused", "resumed"]] * 2
    assert paces.keys() == {moved.id, held.id}
    assert await history.paces([]) == {}


async def test_a_batch_that_has_ended_is_looked_at_no_more(
    world: StoreFixture, history: HistoryStore
) -> None:
    """Its counters then say of lines that never ran that they failed."""
    batch = await world.running(("m", 4))
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [0]), held=[lease])
    await history.advance([batch.id], world.now)
    await world.store.batches.cancel(batch.project_id, batch.id, world.now)
    await world.commit(released=[lease])
    assert (await world.assemble(batch)).counts.failed == 3
    assert await history.advance([batch.id], world.now) == 0
    assert await done_in(history, batch.id) == BatchTotals(1, 0, 10, 5)


# ---- notes


async def reported(world: StoreFixture, batch_id: str) -> list[tuple[str, str, str]]:
    notes = await world.store.history.notes(batch_id)
    return [(each.kind, each.actor, each.detail) for each in notes]


async def test_each_verb_notes_who_did_what(world: StoreFixture) -> None:
    batch, steering = await world.running(("m", 4)), world.store.steering
    where = (batch.project_id, batch.id)
    for _ in range(2):  # what changes nothing is not told
        await steering.hold(*where, "user", "finish", world.now, "key_1")
        world.pass_time(1)
    change = BatchChange(priority=5, completion_window_s=2 * DAY_S, metadata={"name": "x"})
    await steering.change(*where, BatchChange(), world.now, "key_2")
    for _ in range(2):
        await steering.change(*where, change, world.now, "key_2")
        world.pass_time(1)
    for _ in range(2):
        await steering.lift(*where, "user", world.now, "key_3")
        world.pass_time(1)
    for _ in range(2):
        await world.store.batches.cancel(*where, world.now, "key_4")
    assert await reported(world, batch.id) == [
        ("paused", "key_1", ""),
        ("changed", "key_2", "priority 0 to 5, completion window 24h to 2d, new metadata"),
        ("resumed", "key_3", ""),
        ("cancel_asked", "key_4", ""),
    ]
    paces = await world.store.history.paces([batch.id, "batch_unknown"])
    pauses = paces.pop(batch.id).pauses
    assert [(each.kind, each.at, each.actor) for each in pauses] == [
        ("paused", NOON, "key_1"), ("resumed", NOON + timedelta(seconds=4), "key_3")]  # fmt: skip
    assert paces == {}


async def test_a_worker_that_is_lost_is_noted_of_the_batches_that_it_had(
    world: StoreFixture,
) -> None:
    reaped, released = await world.running(("m", 4)), await world.running(("n", 4))
    idle = await world.running(("o", 4))
    await world.claim(models=["m"])
    await world.claim(models=["n"], worker="w2")
    assert await world.store.work.release_worker("w2", world.now) == 1
    assert await world.store.work.release_worker("w2", world.now) == 0
    world.pass_time(TTL_S + 1)
    assert await world.store.work.reap(world.now) == 1
    assert await reported(world, reaped.id) == [("worker_lost", "server", "")]
    assert await reported(world, released.id) == [("worker_lost", "server", "")]
    assert await reported(world, idle.id) == []


async def test_a_spend_cap_that_is_reached_and_raised_is_noted(world: StoreFixture) -> None:
    world.prices = {"m": model_prices(Decimal(2), None, Decimal(1), Decimal("0.5"))}
    owner = await world.organization(spend_cap_pico=1)
    await world.project("p9", owner.id)
    batch = await world.running(("m", 4), ("m", 4), project="p9")
    await world.settle(await world.claim_one())
    assert (await world.see(batch)).holds == ("spend_cap",)
    world.pass_time(60)
    assert await world.store.tenants.change_organization(
        owner.id, limits=OrganizationLimits(), spend_cap_pico=None, now=world.now
    )
    notes = await world.store.history.notes(batch.id)
    assert [(each.kind, each.at) for each in notes] == [
        ("paused", world.now - timedelta(seconds=60)),
        ("resumed", world.now),
    ]


async def test_only_the_newest_notes_are_kept(
    world: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BATCH_NOTES_MAX", 3)
    batch, other = await world.running(("m", 4)), await world.running(("n", 4))
    for number in range(5):
        for each in (batch, other)[: 2 if number == 0 else 1]:
            change = BatchChange(priority=number + 1)
            await world.store.steering.change(each.project_id, each.id, change, world.now)
        world.pass_time(1)
    details = [detail for _, _, detail in await reported(world, batch.id)]
    assert details == ["priority 2 to 3", "priority 3 to 4", "priority 4 to 5"]
    assert len(await reported(world, other.id)) == 1


# ---- age


async def test_what_is_old_is_forgotten_and_what_is_not_stays(
    world: StoreFixture, history: HistoryStore
) -> None:
    old, new = await world.running(("m", 4)), await world.running(("m", 4))
    for lease in await world.claim():
        await world.settle(lease)
    for batch, at in ((old, NOON), (new, NOON + timedelta(days=2))):
        assert await history.advance([batch.id], at) == 1
        change = BatchChange(metadata={"night": batch.id})
        await world.store.steering.change(batch.project_id, batch.id, change, at)
    still = await world.running(("n", 4))
    for batch, at in ((still, NOON), (still, NOON + timedelta(days=2))):
        change = BatchChange(metadata={"at": str(at)})
        await world.store.steering.change(batch.project_id, batch.id, change, at)
    assert await history.forget(NOON + timedelta(days=1), 100) == 2
    assert await history.forget(NOON + timedelta(days=1), 100) == 0
    assert (await history.paces([old.id, new.id])).keys() == {new.id}
    assert len(await reported(world, still.id)) == 1


async def test_a_deleted_batch_leaves_no_history(
    world: StoreFixture, history: HistoryStore
) -> None:
    batch = await world.running(("m", 4))
    await world.settle(await world.claim_one())
    await history.advance([batch.id], world.now)
    where = (batch.project_id, batch.id)
    await world.store.batches.cancel(*where, world.now)
    await world.assemble(batch)
    await world.store.steering.delete(*where, world.now)
    assert await history.of_batch(batch.id) is None
    assert await reported(world, batch.id) == []


# ---- replicas


def row(world: StoreFixture, replica: str, calls: int, seconds: float = 0) -> ReplicaRow:
    at = bucket_begin(world.now + timedelta(seconds=seconds))
    return ReplicaRow(replica, at, ReplicaPart(batch_calls=calls, first_bytes={7: calls}))


async def test_processes_write_their_parts_of_a_replica_beside_each_other(
    world: StoreFixture, history: HistoryStore
) -> None:
    await history.write_replicas("p", [])
    await history.write_replicas("p", [row(world, "a", 1), row(world, "b", 5)])
    await history.write_replicas("p", [row(world, "a", 2)])
    await history.write_replicas("q", [row(world, "a", 3), row(world, "a", 4, 60)])
    found = await history.of_replicas(["a", "c"], world.now - timedelta(seconds=60))
    assert found.keys() == {"a"}
    assert sorted(each.part.batch_calls for each in found["a"]) == [2, 3, 4]
    assert all(each.part.first_bytes == {7: each.part.batch_calls} for each in found["a"])
    later = await history.of_replicas(["a"], world.now + timedelta(seconds=31))
    assert [each.part.batch_calls for each in later["a"]] == [4]


async def test_old_rows_of_replicas_go_a_part_at_a_time(
    world: StoreFixture, history: HistoryStore
) -> None:
    for minutes in range(5):
        await history.write_replicas("p", [row(world, "a", minutes, 60 * minutes)])
    before = world.now + timedelta(seconds=150)
    assert [await history.forget_replicas(before, 2) for _ in range(3)] == [2, 1, 0]
    left = await history.of_replicas(["a"], world.now - timedelta(hours=1))
    assert sorted(each.part.batch_calls for each in left["a"]) == [3, 4]


async def test_buckets_in_which_replicas_gave_way_are_found_each_once(
    world: StoreFixture, history: HistoryStore
) -> None:
    gives = ReplicaPart(gave_way_s=2.0, seen_s=30.0)
    at = [bucket_begin(world.now + timedelta(seconds=each)) for each in (0, 30, 60)]
    await history.write_replicas("p", [ReplicaRow("a", each, gives) for each in at[:2]])
    await history.write_replicas("q", [ReplicaRow("b", at[1], ReplicaPart(taken_back=1))])
    await history.write_replicas("q", [ReplicaRow("a", at[2], ReplicaPart(batch_calls=1))])
    assert await history.gave_way(["a", "b"], at[0]) == at[:2]
    assert await history.gave_way(["a"], at[2]) == []
    assert await history.gave_way(["c"], at[0]) == []


# ---- parts


async def test_a_batch_is_told_in_parts_in_the_order_in_which_it_runs(
    world: StoreFixture, history: HistoryStore
) -> None:
    assert await history.parts("batch_unknown", 10) == []
    batch = await world.running(("m", 4), ("m", 3), ("m", 2), ("m", 1))
    waits = await history.parts(batch.id, 10)
    assert [(each.first, each.count) for each in waits] == [(0, 4), (4, 3), (7, 2), (9, 1)]
    assert {each.state for each in waits} == {"waiting"}
    first, second = await world.claim(2)
    await world.settle(first, failed=1)
    found = await history.parts(batch.id, 10)
    assert [each.state for each in found] == ["failed", "running", "waiting", "waiting"]
    assert (found[0].settled, found[0].failed) == (4, 1)
    await world.settle(second)
    few = await history.parts(batch.id, 2)
    assert [(each.first, each.count, each.settled, each.failed) for each in few] == [
        (0, 7, 7, 1),
        (7, 3, 0, 0),
    ]
    await world.store.batches.cancel(batch.project_id, batch.id, world.now)
    assert [each.state for each in await history.parts(batch.id, 10)] == [
        "failed",
        "done",
        "not_run",
        "not_run",
    ]
