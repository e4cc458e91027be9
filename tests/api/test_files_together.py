"""The Files API as the Together SDK uses it (protocol.md sections 2.1 to 2.6), over real HTTP."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import together
from api_server import ApiServer
from together import AsyncTogether, Together

LINES = b'{"custom_id": "a", "body": {"model": "m"}}\n{"custom_id": "b", "body": {"model": "m"}}'


@pytest.fixture
def client(http_api: ApiServer) -> Iterator[Together]:
    with Together(base_url=http_api.url, api_key="k", max_retries=0) as running:
        yield running


@pytest.fixture
async def async_client(http_api: ApiServer) -> AsyncIterator[AsyncTogether]:
    async with AsyncTogether(base_url=http_api.url, api_key="k", max_retries=0) as running:
        yield running


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(LINES)
    return path


def test_upload_check_list_read_and_delete(
    http_api: ApiServer, client: Together, jsonl: Path
) -> None:
    file = client.files.upload(file=jsonl, purpose="batch-api", check=True)
    assert file.filename == "batch.jsonl"
    assert file.bytes == len(LINES)
    assert file.purpose == "batch-api"
    assert file.file_type == "jsonl"
    assert file.processing_status == "COMPLETED"

    assert [found.id for found in client.files.list().data] == [file.id]
    again = client.files.retrieve(file.id)
    assert again.to_dict().items() >= file.to_dict().items()
    assert again.to_dict()["LineCount"] == 2
    assert client.files.content(file.id).read() == LINES

    deleted = client.files.delete(file.id)
    assert deleted.deleted
    assert deleted.id == file.id
    with pytest.raises(together.NotFoundError) as refused:
        client.files.retrieve(file.id)
    assert "No such File object" in str(refused.value)


async def test_the_asynchronous_client_does_the_same(
    http_api: ApiServer, async_client: AsyncTogether, jsonl: Path
) -> None:
    file = await async_client.files.upload(file=jsonl, purpose="batch-api", check=False)
    assert [found.id for found in (await async_client.files.list()).data] == [file.id]
    content = await async_client.files.content(file.id)
    assert await content.read() == LINES
    assert (await async_client.files.retrieve(file.id)).bytes == len(LINES)
    assert (await async_client.files.delete(file.id)).deleted


def test_an_empty_file_is_stored(client: Together, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    file = client.files.upload(file=empty, purpose="batch-api", check=False)
    assert file.bytes == 0
    assert client.files.content(file.id).read() == b""


def test_a_purpose_that_is_not_ours_is_refused_with_the_ones_that_are(
    client: Together, jsonl: Path
) -> None:
    with pytest.raises(together.APIStatusError) as refused:
        client.files.upload(file=jsonl, purpose="fine-tune", check=False)
    assert "'batch-api'" in str(refused.value)


@pytest.mark.parametrize("base", ["", "/together", "/v1", "/together/v1"])
def test_every_base_address_that_people_set_works(
    http_api: ApiServer, jsonl: Path, base: str
) -> None:
    with Together(base_url=http_api.url + base, api_key="k", max_retries=0) as client:
        file = client.files.upload(file=jsonl, purpose="batch-api", check=False)
        assert [found.id for found in client.files.list().data] == [file.id]


def test_the_list_has_no_purpose_that_together_1x_chokes_on(
    http_api: ApiServer, client: Together
) -> None:
    for purpose in ("batch", "batch-api"):
        http_api.ask("POST", f"/v1/files?purpose={purpose}&file_name=x.jsonl")
    assert {file.purpose for file in client.files.list().data} == {"batch-api"}
    assert len(client.files.list().data) == 2


def test_a_file_above_the_bound_is_refused_with_its_reason(
    small_api: ApiServer, tmp_path: Path
) -> None:
    big = tmp_path / "big.jsonl"
    big.write_bytes(b'{"a": 1}\n' * 400_000)
    with (
        Together(base_url=small_api.url, api_key="k", max_retries=0) as client,
        pytest.raises(Exception, match=r"limits\.file_bytes is 300000 bytes"),
    ):
        client.files.upload(file=big, purpose="batch-api", check=False)
    assert small_api.blobs_on_disk() == []


def test_the_announced_checksum_is_held_against_the_bytes(http_api: ApiServer) -> None:
    checksum = hashlib.sha256(LINES).hexdigest()
    announced = http_api.ask("POST", f"/v1/files?purpose=batch-api&file_name=x&checksum={checksum}")
    address = announced.headers["location"].removeprefix(http_api.url)
    changed = http_api.ask("PUT", address, LINES + b"\n")
    assert (changed.status, changed.error["param"]) == (403, "checksum")
    assert http_api.blobs_on_disk() == []
    assert http_api.ask("PUT", address, LINES).status == 200
