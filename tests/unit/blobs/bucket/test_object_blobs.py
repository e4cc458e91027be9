"""What only the bucket adapter can get wrong: its errors, its memory, its second way to write."""

import subprocess
import sys
from pathlib import Path

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError, PreconditionError
from obstore.store import MemoryStore

from lowtide import limits
from lowtide.blobs.bucket.object_blobs import ObjectBlobs
from lowtide.blobs.bucket.object_errors import translated
from lowtide.ports.blobs import BlobError, BlobExists, BlobNotFound, BlobsFull, BlobsUnavailable
from testkit.patience import PATIENCE_S

RSS_BYTES_MAX = 16 * limits.MIB
STREAM_100_MB = """
import asyncio, os, resource, sys
from obstore.store import LocalStore
from lowtide.blobs.bucket.object_blobs import ObjectBlobs
blobs = ObjectBlobs(LocalStore(sys.argv[1]), "a folder through obstore")

def rss():
    # The peak of this program: on Linux, ru_maxrss starts at that of the process it came from.
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024

async def main():
    await blobs.put("warm", b"1")
    piece, before = os.urandom(65_536), rss()
    async with blobs.write("big") as writer:
        for _ in range(1_600):
            await writer.write(piece)
    written = rss()
    assert sum([len(block) async for block in blobs.stream("big")]) == 1_600 * 65_536
    print(written - before, rss() - written)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (FileNotFoundError("x"), BlobNotFound, "no blob key"),
        (PreconditionError("x"), BlobExists, "key exists already"),
        (PermissionDeniedError("x"), BlobsUnavailable, "Check the credentials"),
        (GenericError("<Code>QuotaExceeded</Code>"), BlobsFull, "raise its quota"),
        (GenericError("HTTP 507 Insufficient Storage"), BlobsFull, "raise its quota"),
        (GenericError("connection refused\n\nDebug source: x"), BlobsUnavailable, "refused. Check"),
        (ConnectionResetError("reset"), BlobsUnavailable, "s3://bucket failed at key"),
    ],
)
def test_an_error_of_the_store_becomes_one_of_the_port(
    raised: Exception, expected: type[BlobError], words: str
) -> None:
    with pytest.raises(expected, match=words), translated("key", "s3://bucket"):
        raise raised


def test_a_streamed_write_and_read_of_100_mb_stay_within_16_mb(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", STREAM_100_MB, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    write_bytes, read_bytes = map(int, child.stdout.split())
    assert write_bytes < RSS_BYTES_MAX
    assert read_bytes < RSS_BYTES_MAX


async def test_a_store_whose_copy_replaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    copy = obstore.copy

    def careless(store: MemoryStore, source: str, to: str, *, overwrite: bool) -> None:
        copy(store, source, to, overwrite=True)

    monkeypatch.setattr(obstore, "copy", careless)
    blobs = ObjectBlobs(MemoryStore(), "a careless bucket")
    with pytest.raises(BlobError, match="a careless bucket replaced a blob"):
        await blobs.probe()
    assert [info async for info in blobs.list("")] == []
