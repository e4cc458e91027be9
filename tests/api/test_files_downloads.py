"""`GET /v1/files/{id}/content`: whole, in ranges, while it grows, and when the bytes are gone."""

import asyncio
import hashlib
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection, IncompleteRead
from urllib.parse import quote

import pytest
from api_server import ApiServer, form

from lowtide.core.files.file import File, FileStatus
from lowtide.ports.blobs import BlobsUnavailable
from lowtide.service.batches.results import PartialContent
from testkit.patience import PATIENCE_S

DATA = bytes(range(256)) * 4000 + b"\n"
"""About four blocks."""


def upload(http_api: ApiServer, data: bytes = DATA, name: str = "x.jsonl") -> str:
    body, kind = form([("purpose", None, b"batch"), ("file", name, data)])
    file_id: str = http_api.ask("POST", "/v1/files", body, {"Content-Type": kind}).json["id"]
    return file_id


def test_the_whole_comes_with_its_length_and_what_it_is(http_api: ApiServer) -> None:
    path = f"/v1/files/{upload(http_api)}/content"
    got = http_api.ask("GET", path)
    assert (got.status, got.body) == (200, DATA)
    head = http_api.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    for answer in (got, head):
        assert answer.headers["content-length"] == str(len(DATA))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["etag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'
        assert answer.headers["x-incomplete"] == "false"
        assert answer.headers["x-last-line"] == str(DATA.count(b"\n"))
        assert "transfer-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-1", 0, 1),
        ("bytes=5-", 5, len(DATA) - 1),
        ("bytes=-7", len(DATA) - 7, len(DATA) - 1),
        ("bytes=300000-900000", 300000, 900000),
        ("bytes=1000000-99999999", 1000000, len(DATA) - 1),
    ],
)
def test_a_range_is_answered_with_its_place(
    http_api: ApiServer, asked: str, start: int, end: int
) -> None:
    answer = http_api.ask("GET", f"/v1/files/{upload(http_api)}/content", headers={"Range": asked})
    assert (answer.status, answer.body) == (206, DATA[start : end + 1])
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(DATA)}"
    assert answer.headers["content-length"] == str(end - start + 1)


def test_a_range_behind_the_end_is_refused_with_the_size(http_api: ApiServer) -> None:
    answer = http_api.ask(
        "GET", f"/v1/files/{upload(http_api)}/content", headers={"Range": "bytes=9999999-"}
    )
    assert (answer.status, answer.error["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_a_range_of_another_version_gets_the_whole(http_api: ApiServer) -> None:
    path = f"/v1/files/{upload(http_api)}/content"
    etag = http_api.ask("HEAD", path).headers["etag"]
    same = http_api.ask("GET", path, headers={"Range": "bytes=0-1", "If-Range": etag})
    other = http_api.ask("GET", path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (same.status, other.status) == (206, 200)


def test_a_name_cannot_leave_its_header(http_api: ApiServer) -> None:
    name = 'a"; evil=1 输\\入%0d%0a.jsonl'
    file_id = upload(http_api, b"x", name.replace('"', "%22"))
    header = http_api.ask("GET", f"/v1/files/{file_id}/content").headers["content-disposition"]
    plain = header.partition('filename="')[2].partition('"; filename*=')[0]
    assert not set('"\\%\r\n') & set(plain)
    shown = http_api.ask("GET", f"/v1/files/{file_id}").json["filename"]
    assert header.endswith(f"filename*=UTF-8''{quote(shown, safe='')}")


def test_a_file_without_bytes_says_that_they_never_came(http_api: ApiServer) -> None:
    announced = http_api.ask("POST", "/v1/files?purpose=batch-api&file_name=x")
    file_id = announced.headers["x-together-file-id"]
    answer = http_api.ask("GET", f"/v1/files/{file_id}/content")
    assert (answer.status, answer.error["code"]) == (400, "file_not_ready")
    assert "never uploaded" in answer.error["message"]


def test_an_unknown_file_is_not_found_in_every_verb(http_api: ApiServer) -> None:
    for method, tail in [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/content"),
        ("POST", "/preprocess"),
    ]:
        answer = http_api.ask(method, f"/v1/files/file-unknown{tail}")
        assert (answer.status, answer.error["code"]) == (404, "file_not_found")


def test_bytes_that_are_gone_are_an_error_and_not_a_broken_success(http_api: ApiServer) -> None:
    file_id = upload(http_api)
    for path in http_api.blobs_on_disk():
        path.unlink()
    answer = http_api.ask("GET", f"/v1/files/{file_id}/content")
    assert (answer.status, answer.error["code"]) == (404, "file_not_found")


def test_a_store_that_fails_in_mid_stream_breaks_the_answer_off(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = upload(http_api)

    async def failing(*_: object) -> AsyncIterator[bytes]:
        yield DATA[:1000]
        raise BlobsUnavailable("the disk went away")

    monkeypatch.setattr(http_api.services.files, "stream", failing)
    with closing(HTTPConnection("127.0.0.1", http_api.port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", f"/v1/files/{file_id}/content")
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises(IncompleteRead):
            response.read()
        response.close()


def test_a_client_that_leaves_closes_what_it_was_reading(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = upload(http_api)
    closed = threading.Event()

    async def stuck(*_: object) -> AsyncIterator[bytes]:
        try:
            yield DATA[:100]
            await asyncio.Event().wait()
        finally:
            closed.set()

    monkeypatch.setattr(http_api.services.files, "stream", stuck)
    with socket.create_connection(("127.0.0.1", http_api.port), timeout=PATIENCE_S) as line:
        line.sendall(
            f"GET /v1/files/{file_id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        assert line.recv(100).startswith(b"HTTP/1.1 200 ")
        assert not closed.is_set()
    assert closed.wait(PATIENCE_S)


def result_file(http_api: ApiServer, status: FileStatus) -> str:
    file = File(
        id="file-out-1",
        project_id="proj_default",
        purpose="batch_output",
        filename="batch_1_output.jsonl",
        status=status,
        dialect="openai",
        created_at=datetime.now(UTC),
        batch_id="batch_1",
        blob_key="outputs/1" if status == "uploaded" else "",
    )
    http_api.run(http_api.store.files.add(file))
    return file.id


class Reader:
    """In the place of the result reader: says what it was asked, and that there is more to come."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int | None]] = []

    async def open(self, project_id: str, file: File, offset: int | None) -> PartialContent:
        self.asked.append((project_id, file.id, offset))

        async def body() -> AsyncGenerator[bytes, None]:
            yield b'{"n":1}\n'
            yield b'{"n":2}\n'

        return PartialContent(body(), 16, True, 7)


@pytest.mark.parametrize(
    ("status", "query", "offset"),
    [("growing", "", None), ("growing", "?offset=5", 5), ("uploaded", "?offset=0", 0)],
)
def test_results_that_grow_or_go_on_come_from_the_reader(
    http_api: ApiServer,
    monkeypatch: pytest.MonkeyPatch,
    status: FileStatus,
    query: str,
    offset: int | None,
) -> None:
    reader = Reader()
    monkeypatch.setattr(http_api.services.results, "open", reader.open)
    path = f"/v1/files/{result_file(http_api, status)}/content{query}"
    got, head = http_api.ask("GET", path), http_api.ask("HEAD", path)
    assert (got.status, got.body) == (200, b'{"n":1}\n{"n":2}\n')
    assert (head.status, head.body) == (200, b"")
    for answer in (got, head):
        assert answer.headers["content-length"] == "16"
        assert answer.headers["x-incomplete"] == "true"
        assert answer.headers["x-last-line"] == "7"
    assert reader.asked == [("proj_default", "file-out-1", offset)] * 2


@pytest.mark.parametrize("offset", ["-1", "x", "", "9" * 20, "%C2%B2"])
def test_an_offset_that_is_no_number_is_refused(http_api: ApiServer, offset: str) -> None:
    answer = http_api.ask("GET", f"/v1/files/{upload(http_api, b'x')}/content?offset={offset}")
    assert (answer.status, answer.error["param"]) == (400, "offset")


def test_growing_results_cannot_be_deleted(http_api: ApiServer) -> None:
    file_id = result_file(http_api, "growing")
    answer = http_api.ask("DELETE", f"/v1/files/{file_id}")
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert "Cancel the batch first" in answer.error["message"]
    assert http_api.ask("GET", f"/v1/files/{file_id}").json["status"] == "uploaded"
