"""The Files API as the OpenAI SDK uses it (protocol.md section 3.1), over real HTTP."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest
from api_server import ApiServer
from openai import AsyncOpenAI, OpenAI

LINES = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}\n' * 3


@pytest.fixture
def client(http_api: ApiServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{http_api.url}/v1", api_key="k", max_retries=0) as running:
        yield running


@pytest.fixture
async def async_client(http_api: ApiServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{http_api.url}/v1", api_key="k", max_retries=0) as running:
        yield running


def test_create_list_read_and_delete(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "naïve 输入.jsonl"
    path.write_bytes(LINES)
    file = client.files.create(
        file=path, purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200}
    )
    assert file.filename == "naïve 输入.jsonl"
    assert (file.bytes, file.purpose, file.status) == (len(LINES), "batch", "processed")
    assert file.expires_at == file.created_at + 7200
    assert file._request_id

    assert client.files.wait_for_processing(file.id).id == file.id
    assert client.files.content(file.id).read() == LINES
    assert [found.id for found in client.files.list()] == [file.id]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError) as refused:
        client.files.content(file.id)
    assert refused.value.code == "file_not_found"


async def test_the_asynchronous_client_does_the_same(async_client: AsyncOpenAI) -> None:
    file = await async_client.files.create(file=("x.jsonl", LINES), purpose="batch")
    assert (await async_client.files.content(file.id)).read() == LINES
    assert [found.id async for found in async_client.files.list()] == [file.id]
    assert (await async_client.files.retrieve(file.id)).filename == "x.jsonl"
    assert (await async_client.files.delete(file.id)).deleted


def test_bytes_without_a_name_are_called_upload(client: OpenAI) -> None:
    assert client.files.create(file=io.BytesIO(LINES), purpose="batch").filename == "upload"


def test_pages_follow_each_other_to_the_end(client: OpenAI) -> None:
    made = [client.files.create(file=(f"{n}", b"x"), purpose="batch").id for n in range(5)]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == made
    assert [file.id for file in client.files.list(limit=2)] == made[::-1]
    first = client.files.list(limit=2, order="asc")
    assert first.has_more
    assert (first.first_id, first.last_id) == (made[0], made[1])  # type: ignore[attr-defined]
    assert not client.files.list(after=made[3], order="asc").has_more
    with pytest.raises(openai.BadRequestError, match="No file found") as refused:
        client.files.list(after="file-unknown")
    assert refused.value.param == "after"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/batches",
        "/v1/uploads",
        "/v1/files/multipart/initiate",
        "/v1/files/multipart/complete",
        "/v1/files/multipart/abort",
    ],
)
def test_deep_json_is_refused_at_every_control_route(http_api: ApiServer, path: str) -> None:
    body = b'{"metadata":' + b"[" * 2000 + b"]" * 2000 + b"}"
    answer = http_api.ask("POST", path, body, {"content-type": "application/json"})
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert "nested too deeply" in answer.error["message"]


def test_a_list_can_be_of_one_purpose(client: OpenAI) -> None:
    kept = client.files.create(file=("x", b"x"), purpose="batch").id
    client.files.create(file=("y", b"y"), purpose="batch-api")  # type: ignore[arg-type]
    assert [file.id for file in client.files.list(purpose="batch")] == [kept]


def test_refusals_name_the_parameter(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("x", LINES), purpose="fine-tune")
    assert (refused.value.code, refused.value.param) == ("invalid_purpose", "purpose")
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(
            file=("x", LINES),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 60},
        )
    assert refused.value.param == "expires_after[seconds]"
    assert client.files.list().data == []


def test_a_file_past_its_expiry_is_gone(http_api: ApiServer, client: OpenAI) -> None:
    file = client.files.create(
        file=("x", LINES),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    http_api.clock.shift = type(http_api.clock.shift)(seconds=3601)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_a_file_above_the_bound_is_refused_with_its_reason(small_api: ApiServer) -> None:
    with OpenAI(base_url=f"{small_api.url}/v1", api_key="k", max_retries=0) as client:
        for size in (300_001, 3_000_000):
            with pytest.raises(openai.APIStatusError) as refused:
                client.files.create(file=("x", b"x" * size), purpose="batch")
            assert refused.value.status_code == 413
            assert "limits.file_bytes is 300000 bytes" in refused.value.message
        assert client.files.create(file=("x", b"x" * 300_000), purpose="batch").bytes == 300_000
    assert len(small_api.blobs_on_disk()) == 1
