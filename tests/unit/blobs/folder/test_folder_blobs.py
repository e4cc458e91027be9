"""What only the folder adapter can get wrong: full disks, killed writers, memory, syncing."""

import asyncio
import errno
import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lowtide import limits
from lowtide.blobs.folder.folder_blobs import TEMP_FOLDER, FolderBlobs
from lowtide.ports.blobs import BlobNotFound, BlobsFull, BlobsUnavailable
from testkit.patience import PATIENCE_S

MB_100 = 100 * limits.MIB
RSS_BYTES_MAX = 16 * limits.MIB  # what a stream of any size may add to the process

PRELUDE = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.ports.blobs import BlobsFull
blobs = FolderBlobs(Path(sys.argv[1]))

def rss():
    # The peak of this program: on Linux, ru_maxrss starts at that of the process it came from.
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
"""


def run_child(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(folder)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def write_blocks(blobs: FolderBlobs, key: str, blocks: int) -> None:
    async with blobs.write(key) as writer:
        for _ in range(blocks):
            await writer.write(b"x" * limits.STREAM_BLOCK_BYTES)


async def test_a_killed_writer_leaves_only_what_clean_up_removes(tmp_path: Path) -> None:
    child = run_child(
        tmp_path,
        """
        async def main():
            async with blobs.write("files/f1") as writer:
                await writer.write(b"x" * 1_000_000)
                os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
        """,
    )
    assert child.returncode == -9
    blobs = FolderBlobs(tmp_path)
    (leftover,) = files_under(tmp_path)
    assert leftover.stat().st_size == 1_000_000
    assert [info async for info in blobs.list("")] == []
    with pytest.raises(BlobNotFound):
        await blobs.size("files/f1")

    assert await blobs.clean_up(datetime.now(UTC) - timedelta(minutes=5)) == 0
    assert await blobs.clean_up(datetime.now(UTC) + timedelta(seconds=1)) == 1
    assert files_under(tmp_path) == []
    await blobs.put("files/f1", b"the key is free")


def test_a_streamed_write_and_read_of_100_mb_stay_within_16_mb(tmp_path: Path) -> None:
    child = run_child(
        tmp_path,
        f"""
        async def write():
            piece = os.urandom(65_536)
            async with blobs.write("big") as writer:
                for _ in range({MB_100 // 65_536}):
                    await writer.write(piece)

        async def read():
            return sum([len(block) async for block in blobs.stream("big")])

        async def main():
            await blobs.put("warm", b"1")
            before = rss()
            await write()
            written = rss()
            assert await read() == {MB_100}
            print(written - before, rss() - written)
        asyncio.run(main())
        """,
    )
    assert child.returncode == 0, child.stderr
    write_bytes, read_bytes = map(int, child.stdout.split())
    assert write_bytes < RSS_BYTES_MAX
    assert read_bytes < RSS_BYTES_MAX


def test_a_file_size_limit_is_reported_as_full_and_leaves_nothing(tmp_path: Path) -> None:
    """The kernel itself refuses here, after it took a part of the data: as a full disk does."""
    child = run_child(
        tmp_path,
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))

        async def main():
            try:
                async with blobs.write("streamed") as writer:
                    for _ in range(10):
                        await writer.write(b"x" * 400_000)
            except BlobsFull as error:
                print("full", error)
            try:
                await blobs.put("whole", b"x" * 2_000_000)
            except BlobsFull as error:
                print("full", error)
        asyncio.run(main())
        """,
    )
    assert child.returncode == 0, child.stderr
    first, second = child.stdout.splitlines()
    assert first.startswith("full no room for streamed") and str(tmp_path) in first
    assert second.startswith("full no room for whole")
    assert files_under(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync", "link"])
async def test_no_space_at_any_step_is_full_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    blobs = FolderBlobs(tmp_path)
    await blobs.put("before", b"1")

    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(BlobsFull, match="Free space"):
            await blobs.put("put", b"2")
        with pytest.raises(BlobsFull, match="Free space"):
            await write_blocks(blobs, "written", 3)
    assert files_under(tmp_path) == [tmp_path / "before"]


async def test_a_name_that_cannot_be_made_durable_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = FolderBlobs(tmp_path)
    await blobs.put("before", b"1")

    def refuse(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("lowtide.blobs.folder.staged_file.sync_folder", refuse)
    with pytest.raises(BlobsUnavailable, match="Input/output error"):
        await blobs.put("after", b"2")
    assert files_under(tmp_path) == [tmp_path / "before"]


async def test_bytes_are_synced_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = FolderBlobs(tmp_path)
    await blobs.put("segments/first", b"1")  # so that the folders are there
    steps: list[str] = []
    link = os.link

    def note_link(source: Path, target: Path) -> None:
        link(source, target)
        steps.append("link")

    monkeypatch.setattr(os, "link", note_link)
    monkeypatch.setattr(
        "lowtide.blobs.folder.staged_file.sync", lambda _: steps.append("sync bytes")
    )
    monkeypatch.setattr(
        "lowtide.blobs.folder.staged_file.sync_folder",
        lambda folder: steps.append(f"sync {folder.name}"),
    )
    await blobs.put("segments/second", b"2")
    assert steps == ["sync bytes", "link", "sync segments"]


async def test_a_read_only_folder_says_which_one_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    opened = os.open

    def read_only(path: Path, flags: int, *rest: int, **named: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(BlobsUnavailable, match="writable for this user") as refused:
        await FolderBlobs(folder).probe()
    assert str(folder) in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_of_someone_else_is_unavailable(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o500)  # noqa: PTH101 - a Path's own would count as blocking
    with pytest.raises(BlobsUnavailable, match="Permission denied"):
        await FolderBlobs(tmp_path).probe()


async def test_a_file_where_the_folder_should_be_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(BlobsUnavailable, match="data"):
        await FolderBlobs(tmp_path / "data").probe()


async def test_small_pieces_are_gathered_into_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write = os.write

    def note_size(fd: int, data: memoryview) -> int:
        sizes.append(len(data))
        return write(fd, data)

    blobs = FolderBlobs(tmp_path)
    monkeypatch.setattr(os, "write", note_size)
    async with blobs.write("a") as writer:
        for _ in range(1_000):
            await writer.write(b"x" * 1_000)
    monkeypatch.undo()
    assert sum(sizes) == await blobs.size("a") == 1_000_000
    assert len(sizes) <= 2 * (1_000_000 // limits.STREAM_BLOCK_BYTES + 1)


async def test_near_ranges_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = FolderBlobs(tmp_path)
    await blobs.put("a", bytes(1_000_000))
    reads: list[tuple[int, int]] = []
    pread = os.pread

    def note_read(fd: int, length: int, offset: int) -> bytes:
        reads.append((offset, length))
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", note_read)
    await blobs.read_ranges("a", [(n * 1_000, 900) for n in range(128)])
    assert reads == [(0, 127_900)]


async def test_the_folders_of_a_batch_go_with_its_last_blob(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    await blobs.put("segments/b1/1", b"1")
    await blobs.put("segments/b1/2", b"2")
    await blobs.delete("segments/b1/1")
    assert (tmp_path / "segments/b1").is_dir()
    await blobs.delete("segments/b1/2")
    assert os.listdir(tmp_path) == [TEMP_FOLDER]  # noqa: PTH208


async def test_writing_and_sweeping_one_folder_at_once_loses_nothing(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)

    async def put_and_delete(worker: int) -> None:
        for turn in range(25):
            key = f"segments/b1/{worker}-{turn}"
            await blobs.put(key, key.encode())
            assert await blobs.read(key) == key.encode()
            await blobs.delete(key)

    await asyncio.gather(*(put_and_delete(worker) for worker in range(4)))
    assert files_under(tmp_path) == []


async def test_a_folder_that_was_put_out_of_reach_has_lost_nothing(tmp_path: Path) -> None:
    """What stands in its place may be a file, nothing, or an empty folder where none is mounted."""
    folder, away = tmp_path / "blobs", tmp_path / "away"
    blobs = FolderBlobs(folder)
    await blobs.probe()
    await blobs.put("files/a", b"1")
    folder.rename(away)
    with pytest.raises(BlobsUnavailable):
        await blobs.read("files/a")
    folder.write_bytes(b"a file")
    with pytest.raises(BlobsUnavailable, match="Not a directory"):
        await blobs.size("files/a")
    folder.unlink()
    folder.mkdir()
    with pytest.raises(BlobsUnavailable, match="mounted"):
        async for _ in blobs.stream("files/a"):
            pass
    folder.rmdir()
    away.rename(folder)
    assert await blobs.read("files/a") == b"1"
    with pytest.raises(BlobNotFound):
        await blobs.read("files/b")
