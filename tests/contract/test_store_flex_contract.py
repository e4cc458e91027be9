"""Contract of FlexStore: batches of single calls, which no list shows."""

from datetime import timedelta

import msgspec

from lowtide.core.batches.batch import Flex
from lowtide.core.files.file import File
from lowtide.ports.flex import FlexStatus
from lowtide.ports.work import TaskLease
from testkit.store_fixture import TTL_S, StoreFixture


async def add(
    world: StoreFixture, flex: Flex = "awaited", digest: str = "d", project: str = "p1"
) -> TaskLease:
    await world.project(project)
    file = File(
        id=world.fresh("file-"),
        project_id=project,
        purpose="batch",
        filename="held.jsonl",
        status="uploaded",
        dialect="openai",
        created_at=world.now,
        bytes=100,
        lines=1,
        sha256="ab" * 32,
        blob_key=world.fresh("files/"),
        flex=flex,
    )
    batch = msgspec.structs.replace(world.batch_record(file), flex=flex)
    return await world.store.flex.add(file, batch, digest=digest, owner="api", ttl_s=TTL_S)


async def test_no_list_shows_them_or_their_files(world: StoreFixture) -> None:
    lease = await add(world)
    shown = await world.running()
    assert await world.plan(lease, ("m", 4)) is True
    for _ in range(2):
        await world.settle(await world.claim_one())
    ended = await world.see(lease.batch)
    assert ended.output_file_id is not None
    listed = await world.store.batches.page("p1", after=None, limit=10)
    assert [batch.id for batch in listed] == [shown.id]
    files = await world.store.files.page("p1", after=None, limit=10)
    assert {file.batch_id for file in files} == {None, shown.id}
    assert lease.batch.input_file_id not in {file.id for file in files}
    assert await world.store.files.get("p1", ended.output_file_id) is not None


async def test_one_is_held_by_its_maker_until_the_lease_ends(world: StoreFixture) -> None:
    lease = await add(world)
    store = world.store
    assert await store.lifecycle.claim_validation("v", world.now, TTL_S) is None
    world.pass_time(TTL_S)
    await store.work.reap(world.now)
    again = await store.lifecycle.claim_validation("v", world.now, TTL_S)
    assert again is not None and again.batch.id == lease.batch.id
    assert again.batch.flex == "awaited"
    assert await world.plan(lease, ("m", 1)) is False


async def test_they_do_not_count_as_batches_created(world: StoreFixture) -> None:
    await add(world)
    await world.validating()
    since = world.now - timedelta(hours=1)
    assert await world.store.tenants.batches_created_since("org_default", since) == 1


async def test_the_standing_follows_the_slices(world: StoreFixture) -> None:
    lease = await add(world)
    await world.plan(lease, ("m", 4))
    batch_id = lease.batch.id
    assert (await world.store.flex.standing([batch_id, "nope"]))[batch_id].slices == 0
    await world.settle(await world.claim_one())
    found = await world.store.flex.standing([batch_id, "nope"])
    assert list(found) == [batch_id]
    assert found[batch_id] == FlexStatus("finalizing", (), 1)


async def test_one_is_leased_while_a_worker_has_it(world: StoreFixture) -> None:
    lease = await add(world)
    await world.plan(lease, ("m", 4))
    assert await world.store.flex.is_leased(lease.batch.id) is False
    await world.claim_one()
    assert await world.store.flex.is_leased(lease.batch.id) is True


async def test_the_held_ones_are_found_until_they_end(world: StoreFixture) -> None:
    held = await add(world)
    await add(world, "background")
    await world.validating()
    assert [batch.id for batch in await world.store.flex.awaited()] == [held.batch.id]
    await world.store.batches.cancel("p1", held.batch.id, world.now)
    await world.assemble(held.batch)
    assert await world.store.flex.awaited() == []


async def test_only_an_unanswered_one_is_taken_for_a_repetition(world: StoreFixture) -> None:
    first = await add(world, "background", "same")
    since = world.now - timedelta(minutes=10)
    store = world.store
    found = await store.flex.unanswered("p1", "same", since)
    assert found is not None and found.id == first.batch.id
    assert await store.flex.unanswered("p1", "other", since) is None
    assert await store.flex.unanswered("p2", "same", since) is None
    await store.batches.mark_answered(first.batch.id, world.now)
    assert await store.flex.unanswered("p1", "same", since) is None
