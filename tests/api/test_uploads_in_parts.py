"""Uploads in parts as the vendors' own clients make them, over real HTTP (protocol.md 2.4, 3.2)."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from api_server import ApiServer
from openai import AsyncOpenAI, OpenAI
from tenant_env import CHAT, Env, line
from together import AsyncTogether, Together
from together.lib.resources import files as together_files

from lowtide import limits
from lowtide.cli.client.http_client import HttpClient
from lowtide.cli.client.server_client import ServerClient

PART = 40_000
DATA = b"".join(line(number, text="x" * 3_000) for number in range(1, 41))[:-1]
"""Forty lines without a last newline, over three parts and a bit."""


@pytest.fixture
def openai_client(http_api: ApiServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{http_api.url}/v1", api_key="k", max_retries=0) as running:
        yield running


@pytest.fixture
async def async_openai(http_api: ApiServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{http_api.url}/v1", api_key="k", max_retries=0) as running:
        yield running


@pytest.fixture
def together_client(http_api: ApiServer) -> Iterator[Together]:
    with Together(base_url=http_api.url, api_key="k", max_retries=0) as running:
        yield running


@pytest.fixture
async def async_together(http_api: ApiServer) -> AsyncIterator[AsyncTogether]:
    async with AsyncTogether(base_url=http_api.url, api_key="k", max_retries=0) as running:
        yield running


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client take the road of large files for this small one."""
    monkeypatch.setattr(together_files, "MULTIPART_THRESHOLD_GB", 0.0)
    monkeypatch.setattr(together_files, "_calculate_parts", lambda size: (PART, -(-size // PART)))


@pytest.fixture
def input_file(tmp_path: Path) -> Path:
    path = tmp_path / "naïve 输入.jsonl"
    path.write_bytes(DATA)
    return path


def check_stored(http_api: ApiServer, file_id: str) -> None:
    """The file is whole, and nothing but it lies in the object store once a sweep has passed."""
    assert http_api.ask("GET", f"/v1/files/{file_id}/content").body == DATA
    (file,) = (
        f for f in http_api.run(http_api.store.files.page("proj_default", after=None, limit=9))
    )
    assert (file.id, file.bytes, file.lines) == (file_id, len(DATA), 40)
    assert file.sha256 == hashlib.sha256(DATA).hexdigest()
    for key in http_api.run(http_api.store.results.garbage()):
        (http_api.folder / "blobs" / key).unlink()
    assert [path.parent.name for path in http_api.blobs_on_disk()] == [file_id]


# ---- OpenAI ----


def test_openais_client_uploads_a_file_in_parts(
    http_api: ApiServer, openai_client: OpenAI, input_file: Path
) -> None:
    upload = openai_client.uploads.upload_file_chunked(
        file=input_file,
        mime_type="application/jsonl",
        purpose="batch",
        part_size=PART,
        md5=hashlib.md5(DATA).hexdigest(),
    )
    assert (upload.object, upload.status, upload.bytes) == ("upload", "completed", len(DATA))
    assert upload.expires_at == upload.created_at + 3600
    assert upload.filename == "naïve 输入.jsonl"
    file = upload.file
    assert file is not None
    assert (file.bytes, file.purpose, file.status) == (len(DATA), "batch", "processed")
    assert file.filename == upload.filename
    assert openai_client.files.retrieve(file.id).id == file.id
    check_stored(http_api, file.id)


async def test_openais_asynchronous_client_does_the_same(
    http_api: ApiServer, async_openai: AsyncOpenAI, input_file: Path
) -> None:
    upload = await async_openai.uploads.upload_file_chunked(
        file=DATA,
        filename="x.jsonl",
        bytes=len(DATA),
        mime_type="application/jsonl",
        purpose="batch",
        part_size=PART,
    )
    assert upload.file is not None
    check_stored(http_api, upload.file.id)


def test_parts_may_come_in_any_order_and_the_end_says_which(
    http_api: ApiServer, openai_client: OpenAI
) -> None:
    uploads = openai_client.uploads
    upload = uploads.create(
        bytes=len(DATA),
        filename="x.jsonl",
        mime_type="application/jsonl",
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert (upload.status, upload.file) == ("pending", None)
    last = uploads.parts.create(upload.id, data=DATA[PART:])
    lost = uploads.parts.create(upload.id, data=DATA[:PART])
    first = uploads.parts.create(upload.id, data=DATA[:PART])
    assert (first.object, first.upload_id) == ("upload.part", upload.id)
    assert lost.id != first.id, "what is sent again is another part"
    done = uploads.complete(upload.id, part_ids=[first.id, last.id])
    assert done.file is not None
    assert done.file.expires_at == done.file.created_at + 7200
    check_stored(http_api, done.file.id)


def test_a_cancelled_upload_takes_nothing_and_leaves_nothing(
    http_api: ApiServer, openai_client: OpenAI
) -> None:
    uploads = openai_client.uploads
    upload = uploads.create(bytes=9, filename="x", mime_type="text/plain", purpose="batch")
    part = uploads.parts.create(upload.id, data=b"nine byte")
    assert uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="cancelled") as refused:
        uploads.complete(upload.id, part_ids=[part.id])
    assert refused.value.code == "upload_closed"
    with pytest.raises(openai.BadRequestError):
        uploads.parts.create(upload.id, data=b"more")
    assert len(http_api.run(http_api.store.results.garbage())) == 1


# ---- Together ----


@pytest.mark.usefixtures("small_parts")
def test_togethers_client_uploads_a_file_in_parts(
    http_api: ApiServer, together_client: Together, input_file: Path
) -> None:
    file = together_client.files.upload(file=input_file, purpose="batch-api", check=False)
    assert (file.bytes, file.filename, file.purpose) == (len(DATA), input_file.name, "batch-api")
    assert together_client.files.retrieve(file.id).id == file.id
    check_stored(http_api, file.id)


@pytest.mark.usefixtures("small_parts")
async def test_togethers_asynchronous_client_does_the_same(
    http_api: ApiServer, async_together: AsyncTogether, input_file: Path
) -> None:
    file = await async_together.files.upload(file=input_file, purpose="batch-api", check=False)
    check_stored(http_api, file.id)


@pytest.mark.usefixtures("small_parts")
def test_togethers_client_aborts_what_fails(
    http_api: ApiServer,
    together_client: Together,
    input_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checksum = "0" * 64
    monkeypatch.setattr(together_files, "_calculate_file_checksum", lambda _: checksum)
    with pytest.raises(Exception, match="SHA-256"):
        together_client.files.upload(file=input_file, purpose="batch-api", check=False)
    assert http_api.run(http_api.store.files.page("proj_default", after=None, limit=9)) == []
    keys: list[str] = http_api.run(http_api.store.results.garbage())
    assert len(keys) == 4, "the parts, aborted; the whole was never kept"
    assert {f"{path.parent.parent.name}" for path in http_api.blobs_on_disk()} == {"parts"}


# ---- our own ----


def test_the_command_lines_client_uploads_a_large_file_in_parts(
    http_api: ApiServer, input_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLIENT_PARTS_ABOVE_BYTES", PART)
    monkeypatch.setattr(limits, "UPLOAD_PART_BYTES_MAX", PART)
    with ServerClient(HttpClient(http_api.url)) as client:
        file = client.upload(input_file, "batch")
    assert (file["bytes"], file["filename"]) == (len(DATA), input_file.name)
    check_stored(http_api, file["id"])


# ---- what an upload in parts is good for ----


@pytest.mark.usefixtures("small_parts")
def test_a_batch_runs_over_a_file_that_came_in_parts(env: Env, input_file: Path) -> None:
    tenant = env.tenant()
    url, key = env.http_api.url, tenant.key
    with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        upload = client.uploads.upload_file_chunked(
            file=input_file, mime_type="application/jsonl", purpose="batch", part_size=PART
        )
        assert upload.file is not None
        batch = client.batches.create(
            input_file_id=upload.file.id, endpoint=CHAT, completion_window="24h"
        )
        env.validate()
        seen = client.batches.retrieve(batch.id)
        assert (seen.status, seen.request_counts.total) == ("in_progress", 40)  # type: ignore[union-attr]
    with Together(base_url=url, api_key=key, max_retries=0) as other:
        file = other.files.upload(file=input_file, purpose="batch-api", check=False)
        made: Any = other.batches.create(input_file_id=file.id, endpoint=CHAT)
        env.validate()
        assert other.batches.retrieve(made.job.id).status == "IN_PROGRESS"
