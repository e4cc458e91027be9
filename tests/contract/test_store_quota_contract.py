"""Contract of the quotas: all that is kept counts, and calls at one instant do not pass them."""

import asyncio
from typing import Any

import msgspec
import pytest

from lowtide.core.accounts.batch_quota import BatchQuota, BatchQuotaReached
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.batches.batch import Batch, Flex
from lowtide.core.files.storage_quota import QuotaReached, StorageQuota
from lowtide.core.files.upload import Upload, UploadPart
from testkit.store_fixture import StoreFixture

TIGHT = StorageQuota(bytes=2500)


async def use(world: StoreFixture) -> tuple[int, int]:
    found = await world.store.tenants.storage_use(DEFAULT_ORGANIZATION)
    return found.bytes, found.unfinished


async def begun(world: StoreFixture, **rest: Any) -> Upload:
    await world.project("p1")
    return Upload(
        id=world.fresh("upload_"),
        project_id="p1",
        file_id=world.fresh("file-"),
        purpose="batch",
        filename="in.jsonl",
        file_ttl_s=3600,
        created_at=world.now,
        expires_at=world.now.replace(year=world.now.year + 1),
        **{"bytes": 100, **rest},
    )


def part(world: StoreFixture, upload: Upload, size: int, number: int | None = None) -> UploadPart:
    id = world.fresh("part_")
    return UploadPart(
        id=id,
        upload_id=upload.id,
        number=number,
        bytes=size,
        md5="",
        blob_key=f"parts/{id}",
        created_at=world.now,
    )


async def test_of_files_added_at_one_instant_only_those_that_fit_are_kept(
    world: StoreFixture,
) -> None:
    first = await world.file(project="p1")
    twins = [
        msgspec.structs.replace(first, id=f"file-twin{n}", blob_key=f"files/{n}") for n in range(8)
    ]
    answers = await asyncio.gather(
        *(world.store.files.add(each, TIGHT) for each in twins), return_exceptions=True
    )
    assert all(answer is None or isinstance(answer, QuotaReached) for answer in answers)
    assert [answer for answer in answers if answer is None] == [None], "1,000 + 1,000 of 2,500"
    assert await use(world) == (2000, 0)
    (reached, *_) = (answer for answer in answers if isinstance(answer, QuotaReached))
    assert (reached.lack, reached.use.bytes) == ("bytes", 2000)


async def test_announced_files_get_bytes_only_within_the_quota(world: StoreFixture) -> None:
    files = [await world.file(project="p1", pending=True) for _ in range(4)]
    assert await use(world) == (0, 4)
    answers = await asyncio.gather(
        *(
            world.store.files.mark_uploaded(
                file.id, bytes=1000, lines=1, sha256="", blob_key=f"files/{file.id}", quota=TIGHT
            )
            for file in files
        ),
        return_exceptions=True,
    )
    assert [answer for answer in answers if answer is True] == [True, True]
    assert await use(world) == (2000, 2)


async def test_announced_files_and_open_uploads_have_a_number(world: StoreFixture) -> None:
    quota = StorageQuota(unfinished=2)
    upload = await begun(world)
    await world.store.uploads.add(upload, quota)
    announced = await world.file(project="p1", pending=True)
    with pytest.raises(QuotaReached) as reached:
        await world.store.uploads.add(await begun(world), quota)
    assert (reached.value.lack, reached.value.use.unfinished) == ("unfinished", 2)
    twin = msgspec.structs.replace(announced, id="file-twin")
    with pytest.raises(QuotaReached):
        await world.store.files.add(twin, quota)
    await world.store.uploads.cancel("p1", upload.id, world.now)
    await world.store.files.add(twin, quota)


async def test_a_deleted_file_counts_until_no_batch_reads_it(world: StoreFixture) -> None:
    batch = await world.running(("m", 1), project="p1")
    await world.store.files.delete("p1", batch.input_file_id, world.now)
    assert await use(world) == (1000, 0)
    await world.store.batches.cancel("p1", batch.id, world.now)
    await world.assemble(batch)
    await world.store.results.sweep(world.now, segments_keep_s=3600)
    assert (await use(world))[0] < 1000


async def test_parts_beyond_what_was_announced_count_and_are_bounded(world: StoreFixture) -> None:
    upload = await begun(world)
    await world.store.uploads.add(upload, TIGHT)
    assert await use(world) == (100, 1)
    kept = 0
    for _ in range(30):
        try:
            await world.store.uploads.add_part(part(world, upload, 100), world.now, TIGHT)
        except QuotaReached:
            break
        kept += 1
    assert kept == 25
    assert await use(world) == (2500, 1)


async def test_a_part_sent_again_in_its_place_takes_no_more_room(world: StoreFixture) -> None:
    upload = await begun(world, bytes=2500, parts=1)
    await world.store.uploads.add(upload, TIGHT)
    for _ in range(5):
        sent = part(world, upload, 2500, number=1)
        assert await world.store.uploads.add_part(sent, world.now, TIGHT) == "kept"
    assert await use(world) == (2500, 1)


async def test_of_batches_created_at_one_instant_only_the_hours_share_is_kept(
    world: StoreFixture,
) -> None:
    file = await world.file(project="p1")
    answers = await asyncio.gather(
        *(
            world.store.batches.add(
                world.batch_record(file),
                digest="",
                repeat=False,
                since=world.now,
                quota=BatchQuota(per_hour=3),
            )
            for _ in range(12)
        ),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, BatchQuotaReached)]
    assert [each.lack for each in refused] == ["hour"] * 9
    since = world.now.replace(minute=0)
    assert await world.store.tenants.batches_created_since(DEFAULT_ORGANIZATION, since) == 3


async def test_of_batches_created_at_one_instant_only_so_many_are_unfinished(
    world: StoreFixture,
) -> None:
    file = await world.file(project="p1")
    quota = BatchQuota(unfinished=3)

    async def add() -> Batch:
        record = world.batch_record(file)
        return await world.store.batches.add(
            record, digest="", repeat=False, since=world.now, quota=quota
        )

    answers = await asyncio.gather(*(add() for _ in range(12)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BatchQuotaReached)]
    assert [each.lack for each in refused] == ["unfinished"] * 9
    unfinished = world.store.tenants.unfinished_batches
    assert await unfinished(DEFAULT_ORGANIZATION, 99) == 3
    assert await unfinished(DEFAULT_ORGANIZATION, 2) == 2, "counted no further than asked"
    (first, *_) = (answer for answer in answers if isinstance(answer, Batch))
    await world.store.batches.cancel("p1", first.id, world.now)
    with pytest.raises(BatchQuotaReached):
        await add()  # a batch that is being cancelled is work still
    await world.assemble(first)
    await add()


async def test_background_responses_are_unfinished_batches_and_calls_that_wait_are_not(
    world: StoreFixture,
) -> None:
    two = BatchQuota(unfinished=2)

    async def add(flex: Flex, quota: BatchQuota = two) -> None:
        file = msgspec.structs.replace(
            await world.file(project="p1"), id=world.fresh("file-"), flex=flex
        )
        batch = msgspec.structs.replace(world.batch_record(file), flex=flex)
        await world.store.flex.add(file, batch, digest="", owner="d", ttl_s=60, quota=quota)

    await add("background")
    await add("held", BatchQuota())
    await add("background")
    with pytest.raises(BatchQuotaReached):
        await add("background")
    assert await world.store.tenants.unfinished_batches(DEFAULT_ORGANIZATION, 9) == 2
