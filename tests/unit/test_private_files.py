"""What a server makes on the disk is its owner's alone, whatever the umask."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.data_dir import DATABASE_FILE, locked_data_dir
from lowtide.store.sql_store import SqlStore


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


async def test_data_directory_database_and_blobs_are_closed_to_others(
    tmp_path: Path, open_umask: None
) -> None:
    data_dir = tmp_path / "data"
    with locked_data_dir(data_dir):
        store = SqlStore.sqlite(data_dir / DATABASE_FILE)
        await store.open()
        blobs = FolderBlobs(data_dir / "blobs")
        await blobs.put("files/a/1", b"texts")
        async with blobs.write("files/b/1") as writer:
            await writer.write(b"more texts")
        names = {path.name for path in data_dir.rglob("*") if path.is_file()}
        assert {f"{DATABASE_FILE}-wal", "lock", "1"} <= names
        for path in (data_dir, *data_dir.rglob("*")):
            assert not path.stat().st_mode & 0o077, path
        await store.aclose()


async def test_a_folder_for_blobs_outside_of_it_is_closed_to_others_too(
    tmp_path: Path, open_umask: None
) -> None:
    await FolderBlobs(tmp_path / "elsewhere" / "blobs").put("files/a/1", b"texts")
    for path in (tmp_path / "elsewhere").rglob("*"):
        assert not path.stat().st_mode & 0o077, path
