"""The contract of ports/blobs.py, held by every adapter: folder, bucket, S3, simulator.

The bucket is obstore's own memory store; S3 is moto's server, started on a free port. Every adapter
runs the same code path for large blobs, which is another one than that for small blobs.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from lowtide import limits
from lowtide.blobs.bucket import object_blobs
from lowtide.blobs.bucket.object_blobs import ObjectBlobs
from lowtide.blobs.bucket.publishing import publish_by_put
from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.blobs.url import open_blobs
from lowtide.ports.blobs import BlobExists, BlobNotFound, Blobs
from testkit.patience import PATIENCE_S
from testkit.sim.memory_blobs import BlobDisk, MemoryBlobs

LARGE = os.urandom(limits.BLOB_PART_BYTES * 2 + 12_345)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    if real := os.environ.get("S3_ENDPOINT"):  # tests/real has made the bucket there
        yield real
        return
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urlopen(Request(f"http://{host}:{port}/lowtide", method="PUT")).close()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "bucket", "s3", "s3-by-put", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    if request.param == "folder":
        return FolderBlobs(tmp_path / "blobs")
    if request.param == "memory":
        return MemoryBlobs(BlobDisk())
    if request.param == "bucket":
        from obstore.store import MemoryStore

        return ObjectBlobs(MemoryStore(), "a bucket in memory")
    endpoint = request.getfixturevalue("s3_endpoint")
    for name, value in {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    if request.param == "s3-by-put":  # as on a store that has no conditional copy
        monkeypatch.setattr(object_blobs, "publish_by_copy", publish_by_put)
    return open_blobs(f"s3://lowtide/{secrets.token_hex(8)}", tmp_path)


async def write_all(
    blobs: Blobs, key: str, data: bytes, piece: int = 65_536, *, is_fresh: bool = False
) -> None:
    async with blobs.write(key, is_fresh=is_fresh) as writer:
        for start in range(0, len(data), piece):
            await writer.write(data[start : start + piece])


async def keys(blobs: Blobs, prefix: str = "") -> set[str]:
    return {info.key async for info in blobs.list(prefix)}


async def leftovers(blobs: Blobs) -> int:
    return await blobs.clean_up(datetime.now(UTC) + timedelta(hours=1))


async def test_what_is_put_is_read_back(blobs: Blobs) -> None:
    await blobs.put("segments/b1/0001.seg", b"hello")
    assert await blobs.read("segments/b1/0001.seg") == b"hello"
    assert await blobs.size("segments/b1/0001.seg") == 5


async def test_an_empty_blob_is_a_blob(blobs: Blobs) -> None:
    await blobs.put("put", b"")
    async with blobs.write("written"):
        pass
    for key in ("put", "written"):
        assert await blobs.size(key) == 0
        assert await blobs.read(key) == b""
        assert [block async for block in blobs.stream(key)] == []


@pytest.mark.parametrize("piece", [1_000, 65_536, 3_000_000, len(LARGE)])
async def test_a_blob_written_in_pieces_of_any_size_is_their_sum(blobs: Blobs, piece: int) -> None:
    await write_all(blobs, "files/f1", LARGE, piece)
    assert b"".join([block async for block in blobs.stream("files/f1")]) == LARGE
    assert await blobs.size("files/f1") == len(LARGE)


@pytest.mark.parametrize("data", [b"", b"small", LARGE])
async def test_a_blob_under_a_fresh_key_is_there_whole_or_not_at_all(
    blobs: Blobs, data: bytes
) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        async with blobs.write("files/f1", is_fresh=True) as writer:
            await writer.write(data)
            assert await keys(blobs) == set()
            raise RuntimeError("boom")
    assert await keys(blobs) == set()
    await write_all(blobs, "files/f1", data, is_fresh=True)
    assert b"".join([block async for block in blobs.stream("files/f1")]) == data
    assert await leftovers(blobs) == 0
    with pytest.raises(BlobExists):
        await write_all(blobs, "files/f1", b"other", is_fresh=True)


async def test_a_second_put_is_refused_and_changes_nothing(blobs: Blobs) -> None:
    await blobs.put("a", b"first")
    with pytest.raises(BlobExists):
        await blobs.put("a", b"second")
    assert await blobs.read("a") == b"first"


@pytest.mark.parametrize("second", [b"small", LARGE])
async def test_a_written_blob_never_replaces(blobs: Blobs, second: bytes) -> None:
    await blobs.put("a", b"first")
    with pytest.raises(BlobExists):
        await write_all(blobs, "a", second)
    assert await blobs.read("a") == b"first"
    assert await leftovers(blobs) == 0


@pytest.mark.parametrize("loser", [b"small", LARGE])
async def test_of_two_writers_at_once_the_first_to_finish_wins(blobs: Blobs, loser: bytes) -> None:
    with pytest.raises(BlobExists):
        async with blobs.write("a") as slow:
            await slow.write(loser)
            await write_all(blobs, "a", b"winner")
    assert await blobs.read("a") == b"winner"
    assert await leftovers(blobs) == 0


async def test_of_many_puts_at_once_exactly_one_succeeds(blobs: Blobs) -> None:
    done = await asyncio.gather(
        *(blobs.put("a", bytes([n]) * 1_000) for n in range(8)), return_exceptions=True
    )
    (winner,) = [n for n, result in enumerate(done) if result is None]
    assert all(isinstance(result, BlobExists) for result in done if result is not None)
    assert await blobs.read("a") == bytes([winner]) * 1_000


async def test_a_blob_is_not_there_before_its_writer_has_left(blobs: Blobs) -> None:
    async with blobs.write("files/f1") as writer:
        await writer.write(LARGE)
        assert await keys(blobs) == set()
        with pytest.raises(BlobNotFound):
            await blobs.size("files/f1")
    assert await keys(blobs) == {"files/f1"}


@pytest.mark.parametrize("data", [b"small", LARGE])
async def test_a_writer_that_fails_leaves_nothing(blobs: Blobs, data: bytes) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        async with blobs.write("a") as writer:
            await writer.write(data)
            raise RuntimeError("boom")
    assert await keys(blobs) == set()
    assert await leftovers(blobs) == 0
    await blobs.put("a", b"the key is free again")


@pytest.mark.parametrize("data", [b"small", LARGE])
async def test_a_writer_that_is_cancelled_leaves_nothing(blobs: Blobs, data: bytes) -> None:
    written = asyncio.Event()

    async def write_and_wait() -> None:
        async with blobs.write("a") as writer:
            await writer.write(data)
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_and_wait())
    arrived = asyncio.create_task(written.wait())
    await asyncio.wait([task, arrived], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    assert arrived.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await keys(blobs) == set()
    assert await leftovers(blobs) == 0


@pytest.mark.parametrize("turns", range(1, 12))
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_write_cancelled_at_any_step_is_done_or_has_left_nothing(
    blobs: Blobs, turns: int, streamed: bool
) -> None:
    """Cancelled after some turns of the loop, it ends done, or cancelled without trace."""
    data = b"x" * (limits.STREAM_BLOCK_BYTES * 2)
    work = write_all(blobs, "a", data) if streamed else blobs.put("a", data)
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert ended is None or isinstance(ended, asyncio.CancelledError)
    assert await keys(blobs) == ({"a"} if ended is None else set())
    assert await leftovers(blobs) == 0


async def test_clean_up_spares_a_writer_that_still_writes(blobs: Blobs) -> None:
    async with blobs.write("a") as writer:
        await writer.write(LARGE)
        await blobs.clean_up(datetime.now(UTC) - timedelta(hours=1))
    assert await blobs.read("a") == LARGE


async def test_a_missing_blob_is_not_found_by_any_reader(blobs: Blobs) -> None:
    await blobs.put("folder/a", b"1")
    for key in ("nope", "folder", "folder/nope", "nope/nope", "folder/a/below"):
        with pytest.raises(BlobNotFound):
            await blobs.size(key)
        with pytest.raises(BlobNotFound):
            await blobs.read(key)
        with pytest.raises(BlobNotFound):
            await blobs.read_ranges(key, [(0, 1)])
        with pytest.raises(BlobNotFound):
            await anext(blobs.stream(key))


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, None),
        (3, None),
        (3, 4),
        (0, 0),
        (9, 1),
        (9, 50),
        (10, None),
        (10, 3),
        (50, 3),
        (50, None),
    ],
)
async def test_a_range_is_what_a_slice_would_be(
    blobs: Blobs, offset: int, length: int | None
) -> None:
    data = b"0123456789"
    await blobs.put("a", data)
    expected = data[offset:] if length is None else data[offset : offset + length]
    assert await blobs.read("a", offset, length) == expected
    assert b"".join([b async for b in blobs.stream("a", offset, length)]) == expected
    if length is not None:
        assert await blobs.read_ranges("a", [(offset, length)]) == [expected]


async def test_a_stream_comes_in_blocks_of_bounded_size(blobs: Blobs) -> None:
    await write_all(blobs, "a", LARGE)
    blocks = [block async for block in blobs.stream("a", 7, len(LARGE) - 20)]
    assert b"".join(blocks) == LARGE[7 : len(LARGE) - 13]
    assert all(0 < len(block) <= limits.STREAM_BLOCK_BYTES for block in blocks)


async def test_a_stream_that_is_left_early_can_be_closed(blobs: Blobs) -> None:
    await write_all(blobs, "a", LARGE)
    stream = blobs.stream("a")
    assert LARGE.startswith(await anext(stream))
    await stream.aclose()  # type: ignore[attr-defined]


async def test_ranges_come_back_in_the_order_they_were_asked(blobs: Blobs) -> None:
    await write_all(blobs, "a", LARGE)
    ranges = [(5_000_000, 300_000), (0, 10), (8, 4), (100, 0), (70_000, 5), (10, 90), (0, 10)]
    expected = [LARGE[offset : offset + length] for offset, length in ranges]
    assert await blobs.read_ranges("a", ranges) == expected
    assert await blobs.read_ranges("a", []) == []


async def test_a_list_names_what_lies_under_its_folder(blobs: Blobs) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    for key in ("segments/b1/1", "segments/b1/2", "segments/b2/1", "segments2/x", "files/f"):
        await blobs.put(key, key.encode())
    assert await keys(blobs, "segments/") == {"segments/b1/1", "segments/b1/2", "segments/b2/1"}
    assert await keys(blobs, "segments/b1/") == {"segments/b1/1", "segments/b1/2"}
    assert await keys(blobs, "nothing/") == set()
    assert len(await keys(blobs)) == 5
    (info,) = [info async for info in blobs.list("files/")]
    assert info.bytes == len("files/f")
    assert before < info.modified_at < datetime.now(UTC) + timedelta(minutes=1)


async def test_a_deleted_blob_is_gone_and_its_key_is_free(blobs: Blobs) -> None:
    await blobs.put("segments/b1/1", b"1")
    await blobs.delete("segments/b1/1")
    await blobs.delete("segments/b1/1")
    await blobs.delete("never/there")
    with pytest.raises(BlobNotFound):
        await blobs.read("segments/b1/1")
    await blobs.put("segments/b1/1", b"2")
    assert await blobs.read("segments/b1/1") == b"2"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.b", "a b", "a\\b", "a\n", "ä", "a\0"]
)
async def test_a_key_that_leads_elsewhere_is_refused(blobs: Blobs, key: str) -> None:
    async def streamed() -> AsyncIterator[bytes]:
        async for block in blobs.stream(key):
            yield block

    with pytest.raises(ValueError, match="no blob key"):
        await blobs.put(key, b"1")
    with pytest.raises(ValueError, match="no blob key"):
        await write_all(blobs, key, b"1")
    with pytest.raises(ValueError, match="no blob key"):
        await blobs.read(key)
    with pytest.raises(ValueError, match="no blob key"):
        await anext(streamed())
    with pytest.raises(ValueError, match="no blob key"):
        await blobs.delete(key)


async def test_a_prefix_that_leads_elsewhere_is_refused(blobs: Blobs) -> None:
    for prefix in ("..", "../", "/", "segments", ".tmp/", ".staging/"):
        with pytest.raises(ValueError, match="no blob prefix"):
            await keys(blobs, prefix)


async def test_a_negative_range_is_refused(blobs: Blobs) -> None:
    await blobs.put("a", b"123")
    for offset, length in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match="no such range"):
            await blobs.read("a", offset, length)
        with pytest.raises(ValueError, match="no such range"):
            await blobs.read_ranges("a", [(offset, length)])


async def test_a_sound_store_passes_the_probe_and_is_left_as_it_was(blobs: Blobs) -> None:
    await blobs.probe()
    assert await keys(blobs) == set()
    assert await leftovers(blobs) == 0
