"""Contract of BatchStore: creation that survives repetition, pages, cancelling in every state."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from lowtide.core.batch import Batch
from lowtide.core.plan import ModelShare
from lowtide.testing.store_world import World


async def create(world: World, digest: str, *, repeat: bool = False, since_s: float = 600) -> Batch:
    batch = world.batch_record(await world.file())
    since = world.now - timedelta(seconds=since_s)
    return await world.store.batches.add(batch, digest=digest, repeat=repeat, since=since)


async def test_a_batch_comes_back_as_it_was_added(world: World) -> None:
    batch = world.batch_record(
        await world.file(), priority=-3, dialect="together", output_expires_after_s=3600
    )
    batch = msgspec.structs.replace(batch, metadata={"käse": '🧀 "quoted"', "empty": ""})
    added = await world.store.batches.add(batch, digest="d", repeat=False, since=world.now)
    assert added == batch
    assert await world.store.batches.get("p1", batch.id) == batch


async def test_another_projects_batch_is_unknown(world: World) -> None:
    batch = await world.validating(project="p1")
    assert await world.store.batches.get("p2", batch.id) is None
    assert await world.store.batches.cancel("p2", batch.id, world.now) is None
    assert await world.store.batches.page("p2", after=None, limit=9) == []
    assert (await world.see(batch)).status == "validating"


# ---- repeated creates


async def test_a_create_that_got_no_answer_is_not_done_twice(world: World) -> None:
    first = await create(world, "same")
    assert (await create(world, "same")).id == first.id
    assert len(await world.store.batches.page("p1", after=None, limit=9)) == 1


async def test_after_its_answer_an_identical_create_is_a_new_batch(world: World) -> None:
    first = await create(world, "same")
    await world.store.batches.mark_answered(first.id)
    assert (await create(world, "same")).id != first.id


async def test_a_declared_repetition_returns_the_answered_batch_too(world: World) -> None:
    first = await create(world, "same")
    await world.store.batches.mark_answered(first.id)
    assert (await create(world, "same", repeat=True)).id == first.id


async def test_a_repetition_returns_the_batch_as_it_is_now(world: World) -> None:
    first = await create(world, "same")
    await world.store.batches.cancel("p1", first.id, world.now)
    assert (await create(world, "same")).status == "cancelling"


async def test_a_create_before_since_is_not_repeated(world: World) -> None:
    first = await create(world, "same")
    world.pass_time(601)
    second = await create(world, "same", repeat=True)
    assert second.id != first.id


async def test_other_digests_and_projects_are_no_repetition(world: World) -> None:
    first = await create(world, "same")
    assert (await create(world, "other")).id != first.id
    foreign = world.batch_record(await world.file(project="p2"))
    added = await world.store.batches.add(foreign, digest="same", repeat=True, since=world.now)
    assert added.id == foreign.id


async def test_identical_creates_at_once_make_one_batch(world: World) -> None:
    created = await asyncio.gather(*(create(world, "same") for _ in range(8)))
    assert len({batch.id for batch in created}) == 1
    assert len(await world.store.batches.page("p1", after=None, limit=9)) == 1


# ---- pages


async def test_pages_walk_newest_first_even_when_born_in_one_instant(world: World) -> None:
    batches = [await world.validating() for _ in range(5)]
    world.pass_time(1)
    batches.append(await world.validating())
    walked: list[str] = []
    while page := await world.store.batches.page(
        "p1", after=walked[-1] if walked else None, limit=2
    ):
        walked += [batch.id for batch in page]
    assert walked == [batch.id for batch in reversed(batches)]


async def test_a_page_behind_an_unknown_id_is_empty(world: World) -> None:
    foreign = await world.validating(project="p2")
    await world.validating()
    assert await world.store.batches.page("p1", after="batch_unknown", limit=9) == []
    assert await world.store.batches.page("p1", after=foreign.id, limit=9) == []


# ---- cancel


async def test_cancel_while_validating(world: World) -> None:
    batch = await world.validating()
    lease = await world.validation(batch)
    world.pass_time(1)
    seen = await world.store.batches.cancel("p1", batch.id, world.now)
    assert seen is not None
    assert (seen.status, seen.cancelling_at) == ("cancelling", world.now)
    assert await world.plan(lease, ("m", 1)) is False, "the validator's lease is lost"
    ended = await world.assemble(batch)
    assert (ended.status, ended.cancelled_at) == ("cancelled", world.now)
    assert (ended.output_file_id, ended.error_file_id) == (None, None)


async def test_cancel_while_in_progress_drops_what_waits(world: World) -> None:
    batch = await world.running(("m", 2), ("m", 2))
    seen = await world.store.batches.cancel("p1", batch.id, world.now)
    assert seen is not None
    assert seen.status == "cancelling"
    ended = await world.assemble(batch)
    assert ended.status == "cancelled"
    assert (ended.counts.completed, ended.counts.failed) == (0, 4)
    assert ended.output_file_id is None


@pytest.mark.parametrize("state", ["finalizing", "cancelling", "completed", "failed", "cancelled"])
async def test_cancel_where_the_state_does_not_allow_it_changes_nothing(
    world: World, state: str
) -> None:
    batch = await in_state(world, state)
    world.pass_time(5)
    assert await world.store.batches.cancel("p1", batch.id, world.now) == batch


async def in_state(world: World, state: str) -> Batch:
    if state == "completed":
        return await world.completed()
    if state == "failed":
        batch = await world.validating()
        await world.store.lifecycle.reject(await world.validation(batch), [], 0, world.now)
        return await world.see(batch)
    batch = await world.running()
    if state == "finalizing":
        await world.settle(await world.claim_one())
        return await world.see(batch)
    await world.store.batches.cancel("p1", batch.id, world.now)
    return await (world.assemble(batch) if state == "cancelled" else world.see(batch))


async def test_cancel_of_an_unknown_batch_is_none(world: World) -> None:
    assert await world.store.batches.cancel("p1", "batch_unknown", world.now) is None


async def test_models_are_as_planned_whatever_has_settled(world: World) -> None:
    batch = await world.running(("a", 2), ("b", 3), ("a", 1))
    planned = {"a": ModelShare(3, 300), "b": ModelShare(3, 300)}
    assert await world.store.batches.models(batch.id) == planned
    await world.settle(await world.claim_one(models=("b",)))
    assert await world.store.batches.models(batch.id) == planned
    assert await world.store.batches.models("batch_unknown") == {}
