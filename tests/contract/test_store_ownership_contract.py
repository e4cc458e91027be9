"""The contract of `ports.ownership.OwnershipStore`."""

import asyncio
from datetime import timedelta

import pytest

from lowtide.core.replicas.replica_assignment import Fleet, Member, Owner
from lowtide.ports.ownership import OwnershipStore
from lowtide.ports.store import Store
from lowtide.store.sql_store import SqlStore
from testkit.store_fixture import NOON, TTL_S, StoreFixture, outcomes

R1, R2, R3 = "http://a:1/v1", "http://b:1/v1", "http://c:1/v1"


def member(worker_id: str, beat: int = 1, *wants: str) -> Member:
    return Member(worker_id, beat, 30.0, frozenset(wants or (R1, R2)))


@pytest.fixture
def ownership(store: Store) -> OwnershipStore:
    return store.ownership


def owned_by(fleet: Fleet, worker_id: str) -> dict[str, int]:
    return {
        name: owner.token
        for name, owner in fleet.owners.items()
        if owner is not None and owner.worker_id == worker_id
    }


async def test_a_first_heartbeat_makes_a_member_and_lists_what_it_wants(
    ownership: OwnershipStore,
) -> None:
    seen = await ownership.heartbeat(member("w1"), NOON)
    assert seen == Fleet((member("w1"),), {R1: None, R2: None})
    seen = await ownership.heartbeat(Member("w2", 5, 1.5, frozenset({R3})), NOON)
    assert seen.members == (member("w1"), Member("w2", 5, 1.5, frozenset({R3})))
    assert seen.owners == {R1: None, R2: None, R3: None}
    assert await ownership.fleet() == seen


async def test_a_later_heartbeat_replaces_the_earlier_one(ownership: OwnershipStore) -> None:
    await ownership.heartbeat(member("w1"), NOON)
    seen = await ownership.heartbeat(member("w1", 2, R3), NOON)
    assert seen.members == (member("w1", 2, R3),)


async def test_what_is_claimed_is_nobody_else_s(ownership: OwnershipStore) -> None:
    await ownership.heartbeat(member("w1"), NOON)
    await ownership.heartbeat(member("w2"), NOON)
    assert await ownership.claim("w1", [R1], NOON) == {R1: 1}
    assert await ownership.claim("w2", [R1, R2], NOON) == {R2: 1}
    assert await ownership.claim("w1", [R1, R2], NOON) == {}
    assert (await ownership.fleet()).owners == {R1: Owner("w1", 1), R2: Owner("w2", 1)}


async def test_a_worker_that_is_no_member_claims_nothing(ownership: OwnershipStore) -> None:
    await ownership.heartbeat(member("w1"), NOON)
    assert await ownership.claim("w2", [R1], NOON) == {}
    assert await ownership.claim("w1", ["http://unknown:1"], NOON) == {}


async def test_each_claim_has_a_greater_token(ownership: OwnershipStore) -> None:
    await ownership.heartbeat(member("w1"), NOON)
    await ownership.heartbeat(member("w2"), NOON)
    for token, worker in enumerate(("w1", "w2", "w1"), start=1):
        assert await ownership.claim(worker, [R1], NOON) == {R1: token}
        await ownership.release(worker, {R1: token})


async def test_only_the_owner_releases_and_only_under_its_token(ownership: OwnershipStore) -> None:
    for worker in ("w1", "w2"):
        await ownership.heartbeat(member(worker), NOON)
    await ownership.claim("w1", [R1, R2], NOON)
    await ownership.release("w2", {R1: 1})
    await ownership.release("w1", {R1: 2})
    await ownership.release("w1", {})
    assert owned_by(await ownership.fleet(), "w1") == {R1: 1, R2: 1}
    await ownership.release("w1", {R1: 1})
    assert (await ownership.fleet()).owners == {R1: None, R2: Owner("w1", 1)}


async def test_a_worker_is_retired_only_at_the_beat_that_was_seen(
    ownership: OwnershipStore,
) -> None:
    await ownership.heartbeat(member("w1", 1), NOON)
    await ownership.claim("w1", [R1], NOON)
    await ownership.heartbeat(member("w1", 2), NOON)
    assert not await ownership.retire("w1", 1)
    assert owned_by(await ownership.fleet(), "w1") == {R1: 1}
    assert await ownership.retire("w1", 2)
    assert not await ownership.retire("w1", 2)
    assert (await ownership.fleet()).members == ()


async def test_a_retired_worker_finds_that_it_has_lost_everything(
    ownership: OwnershipStore,
) -> None:
    await ownership.heartbeat(member("w1", 1), NOON)
    await ownership.heartbeat(member("w2", 1), NOON)
    await ownership.claim("w1", [R1, R2], NOON)
    await ownership.retire("w1", 1)
    assert await ownership.claim("w1", [R1], NOON) == {}, "it is no member"
    assert await ownership.claim("w2", [R1], NOON) == {R1: 2}
    await ownership.release("w1", {R1: 1, R2: 1})
    seen = await ownership.heartbeat(member("w1", 2), NOON)
    assert seen.owners == {R1: Owner("w2", 2), R2: None}


async def test_the_leases_of_a_retired_worker_end_whatever_its_clock_said(
    store: Store, world: StoreFixture
) -> None:
    ahead = world.now + timedelta(days=1)
    await world.running(("m", 4), ("m", 4))
    waiting = await world.validating()
    for worker in ("w1", "w2"):
        await store.ownership.heartbeat(member(worker), world.now)
    (dead,) = await store.work.claim_chunks("w1", ["m"], 1, ahead, TTL_S)
    alive = await world.claim_one(worker="w2")
    task = await store.lifecycle.claim_validation("w1", ahead, TTL_S)
    assert task is not None and task.batch.id == waiting.id
    assert await store.work.reap(world.now) == 0
    assert not await store.ownership.retire("w1", 9), "not the heartbeat that was seen"
    assert await world.claim(worker="w2") == []

    assert await store.ownership.retire("w1", 1)
    again = await world.claim_one(worker="w2")
    assert (again.key, again.token) == (dead.key, dead.token + 1)
    assert (await world.validation(waiting)).token == task.token + 1
    assert not await store.lifecycle.renew_task(task, ahead, TTL_S)
    assert (await world.commit(outcomes(dead, [0]))).lost == {dead.key}
    assert (await world.commit(held=[alive], worker="w2")).lost == frozenset()


async def test_who_leaves_frees_what_it_owned(ownership: OwnershipStore) -> None:
    await ownership.heartbeat(member("w1"), NOON)
    await ownership.heartbeat(member("w2", 1, R2), NOON)
    await ownership.claim("w1", [R1, R2], NOON)
    await ownership.leave("w1")
    await ownership.leave("w1")
    assert await ownership.fleet() == Fleet((member("w2", 1, R2),), {R2: None})


async def test_workers_that_claim_together_share_without_overlap(
    store_url: str, ownership: OwnershipStore
) -> None:
    names = [f"http://{number}:1/v1" for number in range(20)]
    others = [SqlStore(store_url) for _ in range(3)]
    for other in others:
        await other.open()
    stores = [ownership, *(other.ownership for other in others)]
    workers = [f"w{number}" for number in range(len(stores))]
    await asyncio.gather(
        *(
            store.heartbeat(member(worker, 1, *names), NOON)
            for store, worker in zip(stores, workers, strict=True)
        )
    )
    taken = await asyncio.gather(
        *(store.claim(worker, names, NOON) for store, worker in zip(stores, workers, strict=True))
    )
    assert sorted(name for each in taken for name in each) == sorted(names)
    for other in others:
        await other.aclose()
