"""Contract of idempotency keys: what a key made, in the transaction that makes it, for a day."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from lowtide import limits
from lowtide.core.accounts.batch_quota import BatchQuota, BatchQuotaReached
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.batches.batch import Batch
from lowtide.core.files.file import File
from lowtide.core.files.upload import Upload
from lowtide.core.idempotency.request_key import KeyTaken, RequestKey
from testkit.store_fixture import StoreFixture


def key(name: str = "k", **rest: Any) -> RequestKey:
    rest = {"organization_id": DEFAULT_ORGANIZATION, "kind": "batch", "digest": "d"} | rest
    return RequestKey(key=name, **rest)


async def create(
    world: StoreFixture, key: RequestKey, *, input: File | None = None, **rest: Any
) -> Batch:
    batch = world.batch_record(input or await world.file())
    return await world.store.batches.add(
        batch, digest=batch.id, repeat=False, since=world.now, key=key, **rest
    )


async def upload(world: StoreFixture, key: RequestKey) -> tuple[File, str | None]:
    await world.project("p1")
    file = msgspec.structs.replace(await world.file(), id=world.fresh("file-"))
    return file, await world.store.files.add(file, None, key)


async def batches(world: StoreFixture) -> int:
    return len(await world.store.batches.page("p1", after=None, limit=99))


async def test_the_same_key_and_request_make_one_batch(world: StoreFixture) -> None:
    first = await create(world, key())
    assert (await create(world, key())).id == first.id
    assert await batches(world) == 1
    assert await world.store.idempotency.made_by(key(), world.now) == first.id


@pytest.mark.parametrize("other", [{"digest": "another"}, {"kind": "file"}])
async def test_the_same_key_with_another_request_is_refused_and_changes_nothing(
    world: StoreFixture, other: dict[str, Any]
) -> None:
    first = await create(world, key())
    with pytest.raises(KeyTaken):
        await create(world, key(**other))
    with pytest.raises(KeyTaken):
        await world.store.idempotency.made_by(key(**other), world.now)
    assert await batches(world) == 1
    assert await world.store.idempotency.made_by(key(), world.now) == first.id


async def test_another_key_and_another_organization_make_batches_of_their_own(
    world: StoreFixture,
) -> None:
    other = await world.organization()
    ids = {
        (await create(world, key())).id,
        (await create(world, key("l"))).id,
        (await create(world, key(organization_id=other.id))).id,
    }
    assert len(ids) == 3


async def test_of_creates_at_one_instant_one_makes_the_batch(world: StoreFixture) -> None:
    input = await world.file()
    made = await asyncio.gather(*(create(world, key(), input=input) for _ in range(6)))
    assert len({batch.id for batch in made}) == 1
    assert await batches(world) == 1


async def test_a_key_is_free_where_its_create_was_refused(world: StoreFixture) -> None:
    with pytest.raises(BatchQuotaReached):
        await create(world, key(), quota=BatchQuota(unfinished=0))
    assert await world.store.idempotency.made_by(key(), world.now) is None
    assert (await create(world, key(digest="another"))).id


async def test_a_repetition_is_answered_although_the_quota_is_reached(world: StoreFixture) -> None:
    first = await create(world, key(), quota=BatchQuota(unfinished=1))
    assert (await create(world, key(), quota=BatchQuota(unfinished=1))).id == first.id


async def test_a_key_stands_for_its_request_for_a_day(world: StoreFixture) -> None:
    first = await create(world, key())
    world.now += timedelta(seconds=limits.IDEMPOTENCY_KEY_KEEP_S) - timedelta(microseconds=1)
    assert (await create(world, key())).id == first.id
    world.now += timedelta(microseconds=1)
    assert await world.store.idempotency.made_by(key(digest="another"), world.now) is None
    assert (await create(world, key(digest="another"))).id != first.id


async def test_old_keys_are_forgotten_as_new_ones_come(world: StoreFixture) -> None:
    for number in range(3):
        await create(world, key(f"old-{number}"))
    world.pass_time(limits.IDEMPOTENCY_KEY_KEEP_S)
    await create(world, key("new"))
    world.now -= timedelta(seconds=1)  # by a clock that is behind, the old ones would still count
    assert await world.store.idempotency.made_by(key("old-0"), world.now) is None


async def test_a_key_makes_one_file_and_the_second_learns_which(world: StoreFixture) -> None:
    asked = key(kind="file")
    first, earlier = await upload(world, asked)
    assert earlier is None
    second, earlier = await upload(world, asked)
    assert earlier == first.id
    assert await world.store.files.get("p1", second.id) is None


async def test_a_key_whose_file_was_deleted_makes_another(world: StoreFixture) -> None:
    asked = key(kind="file")
    first, _ = await upload(world, asked)
    assert await world.store.files.delete("p1", first.id, world.now)
    second, earlier = await upload(world, asked)
    assert earlier is None
    assert await world.store.idempotency.made_by(asked, world.now) == second.id


async def test_an_upload_in_parts_is_begun_once_until_it_is_cancelled(world: StoreFixture) -> None:
    await world.project("p1")
    owner, kind = DEFAULT_ORGANIZATION, key(kind="upload")

    async def begin() -> tuple[str, str | None]:
        upload = Upload(
            id=world.fresh("upload_"),
            project_id="p1",
            file_id=world.fresh("file-"),
            purpose="batch",
            filename="in.jsonl",
            bytes=100,
            file_ttl_s=3600,
            created_at=world.now,
            expires_at=world.now + timedelta(hours=1),
        )
        return upload.id, await world.store.uploads.add(upload, None, kind)

    assert not await world.store.idempotency.has_made(owner, "k", world.now)
    first, earlier = await begin()
    assert earlier is None
    found = {earlier for _, earlier in await asyncio.gather(*(begin() for _ in range(3)))}
    assert found == {first}
    assert await world.store.idempotency.has_made(owner, "k", world.now)
    assert not await world.store.idempotency.has_made("another", "k", world.now)
    await world.store.uploads.cancel("p1", first, world.now)
    assert not await world.store.idempotency.has_made(owner, "k", world.now)
    assert (await begin())[1] is None
