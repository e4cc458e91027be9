"""Contract of BatchStore: creation that survives repetition, pages, cancelling in every state."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from lowtide.core.batches.batch import Batch, BatchError
from lowtide.core.batches.batch_filter import BatchFilter
from lowtide.core.batches.plan import ModelTotals
from lowtide.ports.store import UnknownCursor
from lowtide.store.statements import many_keys
from testkit.store_fixture import StoreFixture


async def create(
    world: StoreFixture, digest: str, *, repeat: bool = False, since_s: float = 600
) -> Batch:
    batch = world.batch_record(await world.file())
    since = world.now - timedelta(seconds=since_s)
    return await world.store.batches.add(batch, digest=digest, repeat=repeat, since=since)


async def test_a_batch_comes_back_as_it_was_added(world: StoreFixture) -> None:
    batch = world.batch_record(
        await world.file(), priority=-3, dialect="together", output_expires_after_s=3600
    )
    batch = msgspec.structs.replace(batch, metadata={"käse": '🧀 "quoted"', "empty": ""})
    added = await world.store.batches.add(batch, digest="d", repeat=False, since=world.now)
    assert added == batch
    assert await world.store.batches.get("p1", batch.id) == batch


async def test_another_projects_batch_is_unknown(world: StoreFixture) -> None:
    batch = await world.validating(project="p1")
    assert await world.store.batches.get("p2", batch.id) is None
    assert await world.store.batches.cancel("p2", batch.id, world.now) is None
    assert await world.store.batches.page("p2", after=None, limit=9) == []
    assert (await world.see(batch)).status == "validating"


async def test_many_batches_are_read_at_once_and_others_are_missing(
    world: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_keys, "STORE_KEYS_PER_STATEMENT", 2)
    gone = await world.completed(failed=1)
    batches = [await world.validating(project="p1") for _ in range(3)]
    foreign = await world.validating(project="p2")
    assert await world.store.steering.delete("p1", gone.id, world.now)
    ids = [each.id for each in (*batches, foreign, gone)]
    found = await world.store.batches.get_many("p1", [*ids, ids[0], "batch_unknown"])
    assert found == {each.id: await world.see(each) for each in batches}
    assert await world.store.batches.get_many("p1", []) == {}


# ---- repeated creates


async def test_a_create_that_does_not_say_that_it_repeats_is_a_new_batch(
    world: StoreFixture,
) -> None:
    first = await create(world, "same")
    assert (await create(world, "same")).id != first.id


async def test_a_repetition_of_a_create_that_got_no_answer_returns_its_batch(
    world: StoreFixture,
) -> None:
    first = await create(world, "same")
    world.pass_time(599)
    assert (await create(world, "same", repeat=True)).id == first.id
    assert len(await world.store.batches.page("p1", after=None, limit=9)) == 1


@pytest.mark.parametrize("after_s", [60, 61])
async def test_a_repetition_within_a_minute_of_the_answer_returns_its_batch(
    world: StoreFixture, after_s: float
) -> None:
    first = await create(world, "same")
    await world.store.batches.mark_answered(first.id, world.now)
    world.pass_time(after_s)
    assert ((await create(world, "same", repeat=True)).id == first.id) is (after_s <= 60)


@pytest.mark.parametrize("how", ["add", "repeated"])
async def test_who_has_repeated_a_create_has_not_heard_of_the_batch_until_it_is_answered_again(
    world: StoreFixture, how: str
) -> None:
    first = await create(world, "same")
    await world.store.batches.mark_answered(first.id, world.now)
    world.pass_time(50)
    since = world.now - timedelta(seconds=600)
    if how == "add":
        await create(world, "same", repeat=True)
    else:
        await world.store.batches.repeated("p1", "same", since=since, now=world.now)
    world.pass_time(500)
    assert (await create(world, "same", repeat=True)).id == first.id


async def test_a_repetition_that_was_answered_is_doubted_no_longer_than_the_first(
    world: StoreFixture,
) -> None:
    first = await create(world, "same")
    await create(world, "same", repeat=True)
    await world.store.batches.mark_answered(first.id, world.now)
    world.pass_time(61)
    assert (await create(world, "same", repeat=True)).id != first.id


async def test_a_batch_that_was_cancelled_is_never_what_a_repetition_means(
    world: StoreFixture,
) -> None:
    for is_answered in (True, False):
        first = await create(world, "same")
        if is_answered:
            await world.store.batches.mark_answered(first.id, world.now)
        await world.store.batches.cancel("p1", first.id, world.now)
        assert (await world.see(first)).status == "cancelling"
        assert (await create(world, "same", repeat=True)).id != first.id
        world.pass_time(601)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_batch_that_has_ended_is_meant_only_if_its_client_never_heard_of_it(
    world: StoreFixture, is_answered: bool
) -> None:
    first = await create(world, "same")
    if is_answered:
        await world.store.batches.mark_answered(first.id, world.now)
    lease = await world.store.lifecycle.claim_validation("w", world.now, 30)
    assert lease is not None and lease.batch.id == first.id
    assert await world.store.lifecycle.reject(lease, [BatchError("c", "m")], 1, world.now)
    again = await create(world, "same", repeat=True)
    assert (again.id == first.id) is not is_answered


async def test_a_create_before_since_is_not_repeated(world: StoreFixture) -> None:
    first = await create(world, "same")
    world.pass_time(601)
    second = await create(world, "same", repeat=True)
    assert second.id != first.id


async def test_other_digests_and_projects_are_no_repetition(world: StoreFixture) -> None:
    first = await create(world, "same")
    assert (await create(world, "other", repeat=True)).id != first.id
    foreign = world.batch_record(await world.file(project="p2"))
    added = await world.store.batches.add(foreign, digest="same", repeat=True, since=world.now)
    assert added.id == foreign.id


async def test_what_a_repetition_means_is_known_before_it_is_added(world: StoreFixture) -> None:
    first = await create(world, "same")
    found = world.store.batches.repeated
    since = world.now - timedelta(seconds=600)
    assert (await found("p1", "same", since=since, now=world.now)) == first
    assert await found("p1", "other", since=since, now=world.now) is None
    assert await found("p2", "same", since=since, now=world.now) is None


async def test_identical_repetitions_at_once_make_one_batch(world: StoreFixture) -> None:
    created = await asyncio.gather(*(create(world, "same", repeat=True) for _ in range(8)))
    assert len({batch.id for batch in created}) == 1
    assert len(await world.store.batches.page("p1", after=None, limit=9)) == 1


# ---- pages


async def test_pages_walk_newest_first_even_when_born_in_one_instant(world: StoreFixture) -> None:
    batches = [await world.validating() for _ in range(5)]
    world.pass_time(1)
    batches.append(await world.validating())
    walked: list[str] = []
    while page := await world.store.batches.page(
        "p1", after=walked[-1] if walked else None, limit=2
    ):
        walked += [batch.id for batch in page]
    assert walked == [batch.id for batch in reversed(batches)]


async def test_a_filtered_list_has_what_meets_every_part_in_pages_of_its_own(
    world: StoreFixture,
) -> None:
    async def named(name: str) -> Batch:
        batch = world.batch_record(await world.file())
        batch = msgspec.structs.replace(batch, metadata={"name": name})
        world.pass_time(1)
        return await world.store.batches.add(batch, digest=name, repeat=False, since=world.now)

    async def found(**asked: Any) -> list[str]:
        which = BatchFilter(**asked)
        first = await world.store.batches.page("p1", after=None, limit=1, which=which)
        if not first:
            return []
        rest = await world.store.batches.page("p1", after=first[0].id, limit=9, which=which)
        return [batch.id for batch in (*first, *rest)]

    running = await world.running(("Org/Test-Model", 4))
    one, two, third = [await named(name) for name in ('Moon "A" Ä', "moon_b 5%", "moonxb 50")]
    await world.store.batches.cancel("p1", two.id, world.now)
    moons = [third.id, two.id, one.id]
    assert await found() == [*moons, running.id]
    assert await found(text="MOON") == moons
    assert await found(text="moon_b") == [two.id], "no character stands for another"
    assert await found(text="5%") == [two.id]
    assert await found(text='"A" Ä') == [one.id]
    assert await found(text=one.id) == [one.id]
    assert await found(text="moon", statuses=("cancelling", "cancelled")) == [two.id]
    assert await found(created_after=two.created_at) == [third.id, two.id]
    assert await found(created_before=two.created_at) == [one.id, running.id]
    assert await found(model="test-m") == [running.id]
    assert await found(model="test_m") == []
    file = await world.store.files.get("p1", one.input_file_id)
    assert file is not None
    assert one.id in await found(text=file.filename.upper())


async def test_a_page_behind_an_unknown_id_is_refused(world: StoreFixture) -> None:
    foreign = await world.validating(project="p2")
    await world.validating()
    for unknown in ("batch_unknown", foreign.id):
        with pytest.raises(UnknownCursor):
            await world.store.batches.page("p1", after=unknown, limit=9)


# ---- cancel


async def test_cancel_while_validating(world: StoreFixture) -> None:
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


async def test_cancel_while_in_progress_drops_what_waits(world: StoreFixture) -> None:
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
    world: StoreFixture, state: str
) -> None:
    batch = await in_state(world, state)
    world.pass_time(5)
    assert await world.store.batches.cancel("p1", batch.id, world.now) == batch


async def in_state(world: StoreFixture, state: str) -> Batch:
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


async def test_cancel_of_an_unknown_batch_is_none(world: StoreFixture) -> None:
    assert await world.store.batches.cancel("p1", "batch_unknown", world.now) is None


async def test_models_are_as_planned_whatever_has_settled(world: StoreFixture) -> None:
    batch = await world.running(("a", 2), ("b", 3), ("a", 1))
    planned = {"a": ModelTotals(3, 300), "b": ModelTotals(3, 300)}
    assert await world.store.batches.models(batch.id) == planned
    await world.settle(await world.claim_one(models=("b",)))
    assert await world.store.batches.models(batch.id) == planned
    assert await world.store.batches.models("batch_unknown") == {}
