"""Contract of FileStore: rows, pages, one upload, and deletion that waits for its readers."""

from contextlib import suppress
from datetime import timedelta

import pytest

from lowtide.ports.store import StoreError, StoreValueError, UnknownCursor
from testkit.store_fixture import StoreFixture


async def garbage(world: StoreFixture) -> set[str]:
    return set(await world.store.results.garbage())


async def test_a_file_comes_back_as_it_was_added(world: StoreFixture) -> None:
    expires_at = world.now + timedelta(days=30, microseconds=1)
    file = await world.file(expires_at=expires_at)
    assert await world.store.files.get("p1", file.id) == file
    assert await world.store.files.by_id(file.id) == file


async def test_another_projects_file_is_unknown(world: StoreFixture) -> None:
    file = await world.file(project="p1")
    assert await world.store.files.get("p2", file.id) is None
    assert await world.store.files.delete("p2", file.id, world.now) is False
    assert await world.store.files.get("p1", file.id) == file
    assert await world.store.files.page("p2", after=None, limit=10) == []


async def test_names_are_of_the_projects_files_that_are_there(world: StoreFixture) -> None:
    here, deleted = await world.file(), await world.file()
    foreign = await world.file(project="p2")
    await world.store.files.delete("p1", deleted.id, world.now)
    asked = [here.id, here.id, deleted.id, foreign.id, "file-unknown"]
    assert await world.store.files.names("p1", asked) == {here.id: here.filename}
    assert await world.store.files.names("p1", []) == {}
    assert await world.store.files.get_many("p1", asked) == {here.id: here}
    assert await world.store.files.get_many("p1", []) == {}


async def test_an_id_with_nul_is_nobodys_and_no_outage(world: StoreFixture) -> None:
    """PostgreSQL cannot hold the character, SQLite can."""
    with suppress(StoreValueError):
        assert await world.store.files.get("p1", "file-a\0b") is None
    assert await world.store.files.page("p1", after=None, limit=10) == []


async def test_an_id_is_taken_once(world: StoreFixture) -> None:
    file = await world.file()
    with pytest.raises(StoreError):
        await world.store.files.add(file)


async def test_pages_walk_all_files_in_both_orders(world: StoreFixture) -> None:
    files = []
    for number in range(7):
        files.append(await world.file())
        world.pass_time(number % 2)  # every other file shares its instant with the next
    for order in ("asc", "desc"):
        walked: list[str] = []
        while page := await world.store.files.page(
            "p1", after=walked[-1] if walked else None, limit=3, order=order
        ):
            walked += [file.id for file in page]
        assert walked == [file.id for file in (files if order == "asc" else files[::-1])]


async def test_a_page_may_be_of_one_purpose(world: StoreFixture) -> None:
    await world.file(purpose="batch")
    other = await world.file(purpose="batch-api")
    page = await world.store.files.page("p1", after=None, limit=9, purpose="batch-api")
    assert page == [other]


async def test_a_page_behind_an_unknown_id_is_refused(world: StoreFixture) -> None:
    foreign = await world.file(project="p2")
    await world.file()
    for unknown in ("file-unknown", foreign.id):
        with pytest.raises(UnknownCursor):
            await world.store.files.page("p1", after=unknown, limit=9)


async def test_a_page_begins_behind_a_file_deleted_meanwhile(world: StoreFixture) -> None:
    older, deleted = await world.file(), await world.file()
    await world.store.files.delete("p1", deleted.id, world.now)
    assert await world.store.files.page("p1", after=deleted.id, limit=9) == [older]


async def test_an_upload_is_marked_once(world: StoreFixture) -> None:
    file = await world.file(pending=True)
    store = world.store.files
    assert await store.mark_uploaded(file.id, bytes=9, lines=1, sha256="aa", blob_key="files/k")
    again = await store.mark_uploaded(file.id, bytes=8, lines=2, sha256="bb", blob_key="files/l")
    assert again is False
    seen = await store.by_id(file.id)
    assert seen is not None
    assert (seen.status, seen.bytes, seen.lines) == ("uploaded", 9, 1)
    assert (seen.sha256, seen.blob_key) == ("aa", "files/k")


async def test_a_deleted_file_takes_no_upload(world: StoreFixture) -> None:
    file = await world.file(pending=True)
    await world.store.files.delete("p1", file.id, world.now)
    assert not await world.store.files.mark_uploaded(
        file.id, bytes=9, lines=1, sha256="aa", blob_key="files/k"
    )


async def test_a_deleted_file_is_hidden_and_its_blob_is_garbage(world: StoreFixture) -> None:
    file = await world.file()
    assert await world.store.files.delete("p1", file.id, world.now) is True
    assert await world.store.files.delete("p1", file.id, world.now) is False
    assert await world.store.files.get("p1", file.id) is None
    assert await world.store.files.by_id(file.id) is None
    assert await world.store.files.page("p1", after=None, limit=9) == []
    assert await garbage(world) == {file.blob_key}


async def test_an_input_is_kept_until_the_last_batch_that_reads_it_ends(
    world: StoreFixture,
) -> None:
    file = await world.file()
    one = await world.running(file=file)
    two = await world.validating(file=file)
    await world.store.files.delete("p1", file.id, world.now)
    assert await garbage(world) == set()
    lease = await world.claim_one()
    assert lease.input_key == file.blob_key
    await world.settle(lease)
    await world.assemble(one)
    await world.store.results.sweep(world.now, segments_keep_s=3600)
    assert file.blob_key not in await garbage(world)
    validation = await world.validation(two)
    assert validation.input_key == file.blob_key
    await world.store.lifecycle.reject(validation, [], 0, world.now)
    await world.store.results.sweep(world.now, segments_keep_s=3600)
    assert file.blob_key in await garbage(world)


async def test_deleting_the_output_lets_go_of_the_slices_too(world: StoreFixture) -> None:
    batch = await world.completed(failed=1)
    (row,) = await world.store.results.slices(batch.id)
    assert await world.store.files.delete("p1", batch.output_file_id or "", world.now)
    assert await world.store.results.slices(batch.id) == []
    assert await garbage(world) == {
        f"results/{batch.id}/out",
        f"plans/{batch.id}",
        row.segment_key,
    }
    assert (await world.store.files.get("p1", batch.error_file_id or "")) is not None
