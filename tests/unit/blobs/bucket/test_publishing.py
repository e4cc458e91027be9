"""The two ways to publish a large blob, and how a bucket comes to have the one that it keeps."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import MemoryStore, ObjectStore, from_url

from lowtide import limits
from lowtide.blobs.bucket.object_blobs import ObjectBlobs
from lowtide.blobs.bucket.publishing import publish_by_put
from lowtide.ports.blobs import BlobError, BlobExists, BlobsUnavailable

LARGE = os.urandom(limits.BLOB_PART_BYTES * 2 + 12_345)
COPY = obstore.copy


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urlopen(Request(f"http://{host}:{port}/lowtide", method="PUT")).close()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path) -> ObjectStore:
    return open_bucket(endpoint, f"s3://lowtide/{tmp_path.name}")


def open_bucket(endpoint: str, url: str) -> ObjectStore:
    return from_url(
        url,
        config={
            "endpoint": endpoint,
            "region": "us-east-1",
            "access_key_id": "test",
            "secret_access_key": "test",
            "copy_if_not_exists": "multipart",
        },
        client_options={"allow_http": True},
    )


def replaces(store: ObjectStore, source: str, to: str, *, overwrite: bool) -> None:
    """A store that ignores the condition of a copy."""
    COPY(store, source, to, overwrite=True)


def unknown(*_: object, **__: object) -> None:
    """A store that has no such copy, as Ceph 16 answers it."""
    raise GenericError("411 Length Required")


@pytest.mark.parametrize("copy", [replaces, unknown])
async def test_a_bucket_without_a_conditional_copy_gets_large_blobs_by_put(
    bucket: ObjectStore, copy: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstore, "copy", copy)
    blobs = ObjectBlobs(bucket, "a bucket")
    await blobs.probe()
    async with blobs.write("a") as writer:
        await writer.write(LARGE)
    assert await blobs.read("a") == LARGE
    with pytest.raises(BlobExists):
        async with blobs.write("a") as writer:
            await writer.write(LARGE[::-1])
    assert await blobs.read("a") == LARGE
    assert [info.key async for info in blobs.list("")] == ["a"]


async def test_a_bucket_with_one_is_left_to_copy(
    bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = ObjectBlobs(bucket, "a bucket")
    await blobs.probe()
    copied: list[None] = []
    monkeypatch.setattr(obstore, "copy", lambda *named, **more: copied.append(COPY(*named, **more)))
    async with blobs.write("a") as writer:
        await writer.write(LARGE)
    assert len(copied) == 1


async def test_a_bucket_that_keeps_neither_way_is_refused(
    bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstore, "copy", replaces)
    monkeypatch.setattr(
        "lowtide.blobs.bucket.object_blobs.publish_by_put",
        lambda store, source, to: replaces(store, source, to, overwrite=True),
    )
    blobs = ObjectBlobs(bucket, "a careless bucket")
    with pytest.raises(BlobError, match="a careless bucket replaced a blob"):
        await blobs.probe()
    assert [info async for info in blobs.list("")] == []


async def test_what_a_put_is_refused_for_is_told(endpoint: str, bucket: ObjectStore) -> None:
    """The staged object lies in one bucket, the address leads to another that is not there."""
    obstore.put(bucket, "staged", LARGE)
    elsewhere = open_bucket(endpoint, "s3://nowhere/x")
    with pytest.raises(FileNotFoundError):
        publish_by_put(elsewhere, "staged", "a")
    with pytest.raises(OSError, match="no signed address"):
        publish_by_put(MemoryStore(), "staged", "a")


@pytest.mark.parametrize(
    ("status", "raised", "reported"),
    [(409, AlreadyExistsError, "a"), (412, AlreadyExistsError, "a"), (503, OSError, "503: slow")],
)
def test_an_answer_to_a_put_is_the_key_taken_or_a_failure(
    bucket: ObjectStore,
    status: int,
    raised: type[Exception],
    reported: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    obstore.put(bucket, "staged", LARGE)
    line = Line(status)
    monkeypatch.setattr("lowtide.blobs.bucket.publishing._connect", lambda *_: line)
    with pytest.raises(raised, match=reported):
        publish_by_put(bucket, "staged", "a")
    assert line.sent == LARGE
    assert line.headers == {"Content-Length": str(len(LARGE)), "If-None-Match": "*"}
    assert line.is_closed


class Line:
    """A connection whose far end answers one status, whatever it is sent."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.sent = bytearray()
        self.headers: dict[str, str] = {}
        self.is_closed = False

    def putrequest(self, method: str, url: str) -> None:
        assert method == "PUT"
        assert "X-Amz-Signature=" in url

    def putheader(self, name: str, value: str) -> None:
        self.headers[name] = value

    def endheaders(self) -> None: ...

    def send(self, piece: memoryview) -> None:
        assert len(piece) <= limits.BLOB_PART_BYTES, "not the whole blob in memory"
        self.sent += piece

    def getresponse(self) -> "Line":
        return self

    def read(self, _: int) -> bytes:
        return b"slow\ndown"

    def close(self) -> None:
        self.is_closed = True


async def test_a_bucket_that_cannot_be_reached_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def down(*_: object, **__: object) -> None:
        tried.append(1)
        raise GenericError("connection refused")

    monkeypatch.setattr(obstore, "put", down)
    monkeypatch.setattr(obstore, "delete", down)
    with pytest.raises(BlobsUnavailable):
        await ObjectBlobs(MemoryStore(), "a bucket").probe()
    assert len(tried) == 1
