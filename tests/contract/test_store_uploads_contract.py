"""Contract of UploadStore: parts that count, one completion at a time, and what is let go when."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from lowtide import limits
from lowtide.core.files.file import File
from lowtide.core.files.upload import Upload, UploadPart
from lowtide.ports.store import StoreError
from testkit.store_fixture import StoreFixture

TTL_S = 30.0


async def begun(world: StoreFixture, *, project: str = "p1", parts: int = 0, **rest: Any) -> Upload:
    await world.project(project)
    upload = Upload(
        id=world.fresh("upload_"),
        project_id=project,
        file_id=world.fresh("file-"),
        purpose="batch",
        filename="in.jsonl",
        file_ttl_s=3600,
        created_at=world.now,
        expires_at=world.now + timedelta(hours=1),
        parts=parts,
        **{"bytes": 100, **rest},
    )
    await world.store.uploads.add(upload)
    return upload


def part_of(
    world: StoreFixture, upload: Upload, size: int = 50, number: int | None = None
) -> UploadPart:
    part_id = world.fresh("part_")
    return UploadPart(
        id=part_id,
        upload_id=upload.id,
        number=number,
        bytes=size,
        md5=f"{part_id:0>32}",
        blob_key=f"parts/{upload.id}/{part_id}",
        created_at=world.now,
    )


async def add(
    world: StoreFixture, upload: Upload, size: int = 50, number: int | None = None
) -> UploadPart:
    part = part_of(world, upload, size, number)
    assert await world.store.uploads.add_part(part, world.now) == "kept"
    return part


def file_of(world: StoreFixture, upload: Upload, key: str = "whole") -> File:
    return File(
        id=upload.file_id,
        project_id=upload.project_id,
        purpose=upload.purpose,
        filename=upload.filename,
        status="uploaded",
        dialect="openai",
        created_at=world.now,
        bytes=upload.bytes,
        lines=1,
        sha256="ab" * 32,
        blob_key=f"files/{key}",
    )


async def completed(world: StoreFixture, upload: Upload) -> File:
    file = file_of(world, upload)
    token = await world.store.uploads.hold(upload.id, world.now, TTL_S)
    assert token is not None
    assert await world.store.uploads.complete(upload.id, token, file, "how", world.now)
    return file


async def garbage(world: StoreFixture) -> set[str]:
    return set(await world.store.results.garbage())


async def sweep(world: StoreFixture) -> None:
    await world.store.results.sweep(world.now, segments_keep_s=3600)


async def test_an_upload_comes_back_as_it_was_added(world: StoreFixture) -> None:
    upload = await begun(world, parts=3, checksum="cd" * 32)
    assert await world.store.uploads.get("p1", upload.id) == upload
    assert await world.store.uploads.by_id(upload.id) == upload
    assert await world.store.uploads.get("p2", upload.id) is None
    assert await world.store.uploads.by_id("upload_x") is None
    with pytest.raises(StoreError):
        await world.store.uploads.add(upload)


async def test_parts_come_back_in_the_order_of_arrival(world: StoreFixture) -> None:
    upload, other = await begun(world), await begun(world)
    parts = []
    for size in (30, 50, 20):
        parts.append(await add(world, upload, size))
        await add(world, other, size)
        world.pass_time(1)
    assert await world.store.uploads.parts(upload.id) == parts


async def test_a_numbered_part_sent_again_takes_the_place_of_the_first(world: StoreFixture) -> None:
    upload = await begun(world, parts=2)
    first = await add(world, upload, 60, number=1)
    second = await add(world, upload, 40, number=2)
    again = await add(world, upload, 55, number=1)
    assert {p.id for p in await world.store.uploads.parts(upload.id)} == {second.id, again.id}
    assert await garbage(world) == {first.blob_key}


async def test_parts_have_no_more_bytes_than_there_is_room_for(world: StoreFixture) -> None:
    numbered = await begun(world, parts=2)
    await add(world, numbered, 60, number=1)
    store = world.store.uploads
    assert await store.add_part(part_of(world, numbered, 41, 2), world.now) == "full"
    assert await store.add_part(part_of(world, numbered, 40, 2), world.now) == "kept"
    named = await begun(world, bytes=limits.UPLOAD_PART_BYTES_MAX)
    for _ in range(2):
        await add(world, named, limits.UPLOAD_PART_BYTES_MAX)
    assert await store.add_part(part_of(world, named, 1), world.now) == "full"
    assert len(await store.parts(named.id)) == 2
    assert await garbage(world) == set(), "what was refused has no row; its sender deletes it"


async def test_of_parts_that_arrive_at_once_none_passes_the_room(world: StoreFixture) -> None:
    upload = await begun(world, bytes=limits.UPLOAD_PART_BYTES_MAX)
    half = limits.UPLOAD_PART_BYTES_MAX // 2
    answers = await asyncio.gather(
        *(world.store.uploads.add_part(part_of(world, upload, half), world.now) for _ in range(8))
    )
    assert sorted(answers) == ["full"] * 4 + ["kept"] * 4


async def test_a_number_sent_twice_at_once_is_one_part(world: StoreFixture) -> None:
    upload = await begun(world, parts=1)
    parts = [part_of(world, upload, 100, 1) for _ in range(5)]
    answers = await asyncio.gather(*(world.store.uploads.add_part(p, world.now) for p in parts))
    assert set(answers) == {"kept"}
    (kept,) = await world.store.uploads.parts(upload.id)
    assert await garbage(world) == {p.blob_key for p in parts} - {kept.blob_key}


async def test_an_upload_that_is_held_takes_no_parts_and_no_second_holder(
    world: StoreFixture,
) -> None:
    upload, store = await begun(world), world.store.uploads
    token = await store.hold(upload.id, world.now, TTL_S)
    assert token is not None
    assert await store.hold(upload.id, world.now, TTL_S) is None
    assert await store.add_part(part_of(world, upload), world.now) == "closed"
    world.pass_time(TTL_S - 1)
    assert await store.keep_hold(upload.id, token, world.now, TTL_S)
    world.pass_time(TTL_S - 1)
    assert await store.hold(upload.id, world.now, TTL_S) is None, "it was kept"
    await store.let_go(upload.id, token)
    assert await store.add_part(part_of(world, upload), world.now) == "kept"
    assert await store.hold(upload.id, world.now, TTL_S) is not None


async def test_a_hold_that_was_superseded_completes_nothing(world: StoreFixture) -> None:
    upload, store = await begun(world), world.store.uploads
    dead = await store.hold(upload.id, world.now, TTL_S)
    world.pass_time(TTL_S)
    alive = await store.hold(upload.id, world.now, TTL_S)
    assert dead is not None
    assert alive is not None
    assert alive > dead
    assert not await store.keep_hold(upload.id, dead, world.now, TTL_S)
    assert not await store.complete(upload.id, dead, file_of(world, upload), "x", world.now)
    assert await world.store.files.by_id(upload.file_id) is None
    await store.let_go(upload.id, dead)
    assert await store.hold(upload.id, world.now, TTL_S) is None, "it was not its to let go of"
    assert await store.complete(upload.id, alive, file_of(world, upload), "x", world.now)


async def test_all_holds_can_be_given_up_at_once(world: StoreFixture) -> None:
    store = world.store.uploads
    held = [await begun(world) for _ in range(2)]
    tokens = [await store.hold(upload.id, world.now, TTL_S) for upload in held]
    await begun(world)
    assert await store.let_all_go() == 2
    assert await store.hold(held[0].id, world.now, TTL_S) is not None
    assert tokens[0] is not None
    assert not await store.complete(
        held[0].id, tokens[0], file_of(world, held[0]), "x", world.now
    ), "superseded"


async def test_a_completed_upload_is_a_file_and_its_parts_are_garbage(world: StoreFixture) -> None:
    upload = await begun(world)
    parts = [await add(world, upload), await add(world, upload)]
    file = await completed(world, upload)
    assert await world.store.files.get("p1", upload.file_id) == file
    seen = await world.store.uploads.get("p1", upload.id)
    assert seen is not None
    assert (seen.status, seen.ended_at, seen.choice_digest) == ("completed", world.now, "how")
    assert seen.completion_expires_at is None
    assert await world.store.uploads.parts(upload.id) == []
    assert await garbage(world) == {part.blob_key for part in parts}
    assert await world.store.uploads.hold(upload.id, world.now, TTL_S) is None
    assert await world.store.uploads.add_part(part_of(world, upload), world.now) == "closed"


async def test_of_two_completions_at_once_one_makes_the_file(world: StoreFixture) -> None:
    upload, store = await begun(world), world.store.uploads
    token = await store.hold(upload.id, world.now, TTL_S)
    assert token is not None
    done = await asyncio.gather(
        *(
            store.complete(upload.id, token, file_of(world, upload, key), key, world.now)
            for key in ("one", "two", "three")
        )
    )
    assert sorted(done) == [False, False, True]


async def test_a_cancelled_upload_lets_go_of_its_parts_and_stays_cancelled(
    world: StoreFixture,
) -> None:
    upload, store = await begun(world), world.store.uploads
    part = await add(world, upload)
    token = await store.hold(upload.id, world.now, TTL_S)
    assert token is not None
    assert await store.cancel("p2", upload.id, world.now) is None
    for _ in range(2):
        seen = await store.cancel("p1", upload.id, world.now)
        assert seen is not None
        assert (seen.status, seen.ended_at) == ("cancelled", world.now)
    assert await garbage(world) == {part.blob_key}
    assert not await store.complete(upload.id, token, file_of(world, upload), "x", world.now)
    assert await world.store.files.by_id(upload.file_id) is None


async def test_cancelling_a_completed_upload_changes_nothing(world: StoreFixture) -> None:
    upload = await begun(world)
    file = await completed(world, upload)
    seen = await world.store.uploads.cancel("p1", upload.id, world.now)
    assert seen is not None
    assert seen.status == "completed"
    assert await world.store.files.get("p1", file.id) == file


async def test_an_upload_past_its_time_expires_unless_it_is_held(world: StoreFixture) -> None:
    upload, held, store = await begun(world), await begun(world), world.store.uploads
    part, other = await add(world, upload), await add(world, held)
    world.pass_time(3590)
    token = await store.hold(held.id, world.now, TTL_S)
    assert token is not None
    world.pass_time(10)
    assert await store.add_part(part_of(world, upload), world.now) == "closed"
    assert await store.hold(upload.id, world.now, TTL_S) is None
    await sweep(world)
    assert [(await store.by_id(u.id)).status for u in (upload, held)] == ["expired", "pending"]  # type: ignore[union-attr]
    assert await garbage(world) == {part.blob_key}
    assert await store.complete(held.id, token, file_of(world, held), "x", world.now), (
        "begun in time"
    )
    assert await garbage(world) == {part.blob_key, other.blob_key}


async def test_an_ended_upload_is_forgotten_after_a_while(world: StoreFixture) -> None:
    upload = await begun(world)
    file = await completed(world, upload)
    world.pass_time(3599)
    await sweep(world)
    assert await world.store.uploads.by_id(upload.id) is not None
    world.pass_time(1)
    await sweep(world)
    assert await world.store.uploads.by_id(upload.id) is None
    assert await world.store.files.by_id(file.id) == file


async def test_the_blobs_of_parts_are_known_as_long_as_anybody_needs_them(
    world: StoreFixture,
) -> None:
    upload = await begun(world)
    part = await add(world, upload)
    known = world.store.results.known
    assert await known([part.blob_key, "parts/orphan"]) == {part.blob_key}
    await world.store.uploads.cancel("p1", upload.id, world.now)
    assert await known([part.blob_key]) == {part.blob_key}, "garbage is known, too"
    await world.store.results.forget([part.blob_key])
    assert await known([part.blob_key]) == frozenset()


async def test_what_pending_uploads_announce_counts_as_stored(world: StoreFixture) -> None:
    organization = await world.organization()
    await world.project("mine", organization.id)

    async def stored(organization_id: str) -> int:
        return (await world.store.tenants.storage_use(organization_id)).bytes

    one = await begun(world, project="mine", bytes=300)
    two = await begun(world, project="mine", bytes=500)
    await begun(world, project="p1", bytes=7)
    assert await stored(organization.id) == 800
    await completed(world, one)
    assert await stored(organization.id) == 800, "now it is the file's"
    await world.store.uploads.cancel("mine", two.id, world.now)
    assert await stored(organization.id) == 300
