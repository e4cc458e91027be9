"""What arrives on the wire when no SDK is careful: forms, signed PUTs, refusals, lost clients."""

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from api_server import Answer, ApiServer, answer_of, form, open_api_server

from lowtide import limits
from lowtide.config import ServerSettings, Settings
from lowtide.ports.blobs import BlobsFull
from lowtide.ports.store import StoreUnavailable
from lowtide.service.files.upload_writer import UploadWriter
from testkit.patience import PATIENCE_S

LINES = b'{"custom_id":"a"}\n{"custom_id":"b"}\n'
FORM = "application/x-www-form-urlencoded"


def announce(http_api: ApiServer, file_name: str = "x.jsonl") -> tuple[str, str]:
    """Step 1 of Together's upload; the file's id and the path of the address."""
    answer = http_api.ask(
        "POST", "/v1/files", f"purpose=batch-api&file_name={file_name}", {"Content-Type": FORM}
    )
    assert answer.status == 302
    return answer.headers["x-together-file-id"], answer.headers["location"].removeprefix(
        http_api.url
    )


def raw(http_api: ApiServer, head: str, *pieces: bytes) -> Answer:
    """Exactly these bytes, then whatever the server answers."""
    from http.client import HTTPResponse

    with socket.create_connection(("127.0.0.1", http_api.port), timeout=PATIENCE_S) as line:
        line.sendall(head.replace("\n", "\r\n").encode())
        for piece in pieces:
            line.sendall(piece)
        response = HTTPResponse(line)
        response.begin()
        return answer_of(response)


# ---- forms ----


def test_the_file_may_come_before_its_purpose_without_a_content_length(http_api: ApiServer) -> None:
    body, kind = form([("file", "x.jsonl", LINES), ("purpose", None, b"batch")])
    pieces = iter([body[place : place + 7] for place in range(0, len(body), 7)])
    answer = http_api.ask("POST", "/v1/files", pieces, {"Content-Type": kind})
    assert answer.status == 200
    assert answer.json["bytes"] == len(LINES)
    assert answer.json["status"] == "processed"


def test_a_form_with_batch_api_and_bytes_gets_togethers_answer(http_api: ApiServer) -> None:
    body, kind = form([("purpose", None, b"batch-api"), ("file", "x.jsonl", LINES)])
    answer = http_api.ask("POST", "/v1/files", body, {"Content-Type": kind})
    assert answer.json["FileType"] == "jsonl"
    assert answer.json["LineCount"] == 2


def test_the_upload_path_of_togethers_document_takes_a_file_name(http_api: ApiServer) -> None:
    parts = [("purpose", None, b"batch-api"), ("file_name", None, b"/a/b/c.jsonl")]
    body, kind = form([*parts, ("file", "blob", LINES)])
    answer = http_api.ask("POST", "/v1/files/upload", body, {"Content-Type": kind})
    assert answer.json["filename"] == "c.jsonl"


@pytest.mark.parametrize("mount", ["openai", "together"])
def test_a_mount_fixes_the_shape_whatever_the_purpose(http_api: ApiServer, mount: str) -> None:
    for purpose in (b"batch", b"batch-api"):
        body, kind = form([("purpose", None, purpose), ("file", "x.jsonl", LINES)])
        answer = http_api.ask("POST", f"/{mount}/v1/files", body, {"Content-Type": kind})
        assert ("FileType" in answer.json) is (mount == "together")
        shown = http_api.ask("GET", f"/{mount}/v1/files/{answer.json['id']}")
        assert shown.json == answer.json


def test_a_client_that_expects_a_continue_gets_it(http_api: ApiServer) -> None:
    body, kind = form([("purpose", None, b"batch"), ("file", "x.jsonl", LINES)])
    with socket.create_connection(("127.0.0.1", http_api.port), timeout=PATIENCE_S) as line:
        line.sendall(
            f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert line.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n")
        line.sendall(body)
        assert line.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_expects_a_continue_hears_of_the_bound_first(small_api: ApiServer) -> None:
    answer = raw(
        small_api,
        "POST /v1/files HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=x\n"
        "Content-Length: 9000000\nExpect: 100-continue\n\n",
    )
    assert (answer.status, answer.error["code"]) == (413, "file_too_large")


@pytest.mark.parametrize(
    ("parts", "code", "param"),
    [
        ([("purpose", None, b"batch")], "missing_required_parameter", "file"),
        ([("file", "x", LINES)], "missing_required_parameter", "purpose"),
        ([("file", "x", LINES), ("purpose", None, b"evil")], "invalid_purpose", "purpose"),
        ([("file", "x", LINES), ("file", "y", LINES)], "invalid_request", None),
        ([("purpose", None, b"p" * 70_000), ("file", "x", LINES)], "invalid_request", None),
        ([(f"n{n}", None, b"") for n in range(40)], "invalid_request", None),
    ],
)
def test_a_form_that_will_not_do_is_refused_and_leaves_nothing(
    http_api: ApiServer, parts: list[tuple[str, str | None, bytes]], code: str, param: str | None
) -> None:
    body, kind = form(parts)
    answer = http_api.ask("POST", "/v1/files", body, {"Content-Type": kind})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)
    assert http_api.blobs_on_disk() == []
    assert http_api.ask("GET", "/v1/files").json["data"] == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file'),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nnameless\r\n--x--\r\n"),
        ("application/json", b"{}"),
        (FORM, b""),
        (FORM, b"\xff\xfe"),
    ],
)
def test_a_body_that_is_no_upload_is_refused(http_api: ApiServer, kind: str, body: bytes) -> None:
    answer = http_api.ask("POST", "/v1/files", body, {"Content-Type": kind})
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert http_api.blobs_on_disk() == []


# ---- announce, PUT, preprocess ----


def test_javascript_says_everything_twice_and_never_preprocesses(http_api: ApiServer) -> None:
    said = "purpose=batch-api&file_name=%2Fhome%2Fme%2Fbatch.jsonl&file_type=jsonl"
    answer = http_api.ask("POST", f"/v1/files?{said}", said, {"Content-Type": FORM})
    assert answer.status == 302
    file_id = answer.headers["x-together-file-id"]
    assert file_id.replace("-", "").isalnum()
    path = answer.headers["location"].removeprefix(http_api.url)
    assert http_api.ask("GET", f"/v1/files/{file_id}").json["processing_status"] == "PENDING"
    put = http_api.ask("PUT", path, LINES, {"Content-Type": "application/octet-stream"})
    assert put.status == 200
    shown = http_api.ask("GET", f"/v1/files/{file_id}").json
    assert (shown["filename"], shown["bytes"], shown["Processed"]) == ("batch.jsonl", 36, True)


@pytest.mark.parametrize("pieces", [[], [LINES], [LINES[:5], LINES[5:]]])
def test_a_put_may_be_chunked_and_even_empty(http_api: ApiServer, pieces: list[bytes]) -> None:
    file_id, path = announce(http_api)
    assert http_api.ask("PUT", path, iter(pieces)).status == 200
    assert http_api.ask("GET", f"/v1/files/{file_id}/content").body == b"".join(pieces)


def test_preprocess_answers_the_same_as_often_as_it_is_asked(http_api: ApiServer) -> None:
    file_id, path = announce(http_api)
    early = http_api.ask("POST", f"/v1/files/{file_id}/preprocess")
    assert (early.status, early.error["code"]) == (400, "file_not_ready")
    http_api.ask("PUT", path, LINES)
    answers = [http_api.ask("POST", f"/v1/files/{file_id}/preprocess") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert answers[0].json == answers[2].json
    assert {"id", "bytes", "created_at", "filename", "FileType", "object", "purpose"} < set(
        answers[0].json
    )


def test_an_address_is_good_once(http_api: ApiServer) -> None:
    file_id, path = announce(http_api)
    assert http_api.ask("PUT", path, LINES).status == 200
    again = http_api.ask("PUT", path, b"other")
    assert (again.status, again.error["code"]) == (403, "upload_invalid")
    assert http_api.ask("GET", f"/v1/files/{file_id}/content").body == LINES
    assert len(http_api.blobs_on_disk()) == 1


def test_of_two_puts_at_once_one_wins_whole(http_api: ApiServer) -> None:
    file_id, path = announce(http_api)
    answers: dict[bytes, int] = {}
    first, second, go_on = b"a" * 999, b"b" * 555, threading.Event()

    def pieces() -> Iterator[bytes]:
        yield first[:1]
        go_on.wait(PATIENCE_S)  # the second one comes while this one is under way
        yield first[1:]

    def put() -> None:
        answers[first] = http_api.ask("PUT", path, pieces()).status

    thread = threading.Thread(target=put)
    thread.start()
    while file_id not in http_api.services.files._receiving:
        assert thread.is_alive(), answers
        time.sleep(0.005)
    answers[second] = http_api.ask("PUT", path, second).status
    go_on.set()
    thread.join(PATIENCE_S)
    assert sorted(answers.values()) == [200, 409], "one body at a time"
    (winner,) = [data for data, status in answers.items() if status == 200]
    assert http_api.ask("GET", f"/v1/files/{file_id}/content").body == winner
    assert len(http_api.blobs_on_disk()) == 1


def test_an_address_expires(http_api: ApiServer) -> None:
    _, path = announce(http_api)
    http_api.clock.shift = timedelta(seconds=limits.UPLOAD_URL_TTL_S)
    late = http_api.ask("PUT", path, LINES)
    assert (late.status, late.error["code"]) == (410, "upload_expired")


def test_an_address_cannot_be_changed(http_api: ApiServer) -> None:
    file_id, path = announce(http_api)
    other, _ = announce(http_api)
    query = dict(parse_qsl(urlsplit(path).query))
    for forged in (
        path.replace(file_id, other),
        path.replace(query["expires"], str(int(query["expires"]) + 1)),
        path.replace(query["signature"], "0" * 64),
        path + "&checksum=" + "0" * 64,
        path.partition("?")[0],
        f"/v1/uploads/signed/{file_id}?expires=x&signature=%ff",
    ):
        answer = http_api.ask("PUT", forged, LINES)
        assert (answer.status, answer.error["code"]) == (403, "upload_invalid")
    assert http_api.blobs_on_disk() == []


def test_a_deleted_file_takes_no_bytes(http_api: ApiServer) -> None:
    file_id, path = announce(http_api)
    assert http_api.ask("DELETE", f"/v1/files/{file_id}").status == 200
    assert http_api.ask("PUT", path, LINES).status == 403
    assert http_api.blobs_on_disk() == []


def test_the_broken_retry_of_together_1x_stores_nothing(http_api: ApiServer) -> None:
    _, path = announce(http_api)
    answer = http_api.ask("PUT", f"/v1/{http_api.url}{path}", iter([]))
    assert (answer.status, answer.error["code"]) == (400, "upload_interrupted")
    assert http_api.ask("PUT", path, LINES).status == 200


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"Host": "api.example:81"}, "http://api.example:81"),
        ({"Host": "h", "X-Forwarded-Proto": "https"}, "https://h"),
        (
            {"Host": "h", "X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "a.b, c"},
            "https://a.b",
        ),
        ({"Host": "h", "X-Forwarded-Proto": "javascript"}, "http://h"),
    ],
)
def test_the_address_is_built_from_what_the_client_reached(
    tmp_path: Path, headers: dict[str, str], base: str
) -> None:
    server = ServerSettings(data_dir=tmp_path, allowed_hosts=("api.example", "h"))
    with open_api_server(tmp_path, Settings(server=server)) as http_api:
        answer = http_api.ask("POST", "/v1/files?purpose=batch-api&file_name=x", headers=headers)
    assert answer.headers["location"].startswith(f"{base}/v1/uploads/signed/file-")


def test_a_host_that_is_no_host_is_not_repeated(http_api: ApiServer) -> None:
    headers = {"X-Forwarded-Host": "evil/path?x="}
    answer = http_api.ask("POST", "/v1/files?purpose=batch-api&file_name=x", headers=headers)
    assert answer.headers["location"].startswith(f"{http_api.url}/v1/uploads/signed/")


def test_a_configured_public_address_wins(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("public")
    server = ServerSettings(data_dir=folder, public_url="https://batch.example/")
    with open_api_server(folder, Settings(server=server)) as http_api:
        answer = http_api.ask("POST", "/v1/files?purpose=batch-api&file_name=x")
    assert answer.headers["location"].startswith("https://batch.example/v1/uploads/signed/")


# ---- bounds, lost clients, lost storage ----


def test_a_put_above_the_bound_is_refused_early_and_in_mid_stream(small_api: ApiServer) -> None:
    file_id, path = announce(small_api)
    declared = small_api.ask("PUT", path, b"x" * 5_000_000)
    assert (declared.status, declared.error["code"]) == (413, "file_too_large")
    chunked = small_api.ask("PUT", path, iter([b"x" * 100_000] * 50))
    assert (chunked.status, chunked.error["code"]) == (413, "file_too_large")
    assert small_api.blobs_on_disk() == []
    assert small_api.ask("PUT", path, b"x" * 300_000).status == 200
    assert small_api.ask("GET", f"/v1/files/{file_id}").json["bytes"] == 300_000


def test_a_chunked_form_above_the_bound_is_refused(small_api: ApiServer) -> None:
    body, kind = form([("purpose", None, b"batch"), ("file", "x", b"x" * 3_000_000)])
    pieces = iter([body[place : place + 65536] for place in range(0, len(body), 65536)])
    answer = small_api.ask("POST", "/v1/files", pieces, {"Content-Type": kind})
    assert (answer.status, answer.error["code"]) == (413, "file_too_large")
    assert small_api.blobs_on_disk() == []
    assert small_api.ask("GET", "/v1/files").json["data"] == []


class WatchedIntakes:
    """Tells when an intake began to hold bytes, and when it was over."""

    def __init__(self, http_api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.over = threading.Event(), threading.Event()
        self._open = http_api.services.files.receive
        monkeypatch.setattr(http_api.services.files, "receive", self.receive)

    @asynccontextmanager
    async def receive(
        self, project_id: str, file_id: str, declared: int
    ) -> AsyncIterator[UploadWriter]:
        try:
            async with self._open(project_id, file_id, declared) as intake:
                self.began.set()
                yield intake
        finally:
            self.over.set()


@pytest.mark.parametrize("way", ["form", "put"])
@pytest.mark.parametrize("framing", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
def test_an_interrupted_upload_leaves_nothing(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch, way: str, framing: str
) -> None:
    watch = WatchedIntakes(http_api, monkeypatch)
    body, kind = form([("purpose", None, b"batch"), ("file", "x", b"x" * 600_000)])
    if way == "form":
        head, data = f"POST /v1/files HTTP/1.1\r\nContent-Type: {kind}\r\n", body[:500_000]
    else:
        head, data = f"PUT {announce(http_api)[1]} HTTP/1.1\r\n", b"x" * 500_000
    if "chunked" in framing:
        data = b"%x\r\n%s\r\n" % (len(data), data)
    with socket.create_connection(("127.0.0.1", http_api.port), timeout=PATIENCE_S) as line:
        line.sendall(f"{head}Host: localhost\r\n{framing}\r\n\r\n".encode() + data)
        assert watch.began.wait(PATIENCE_S)
    assert watch.over.wait(PATIENCE_S)
    assert http_api.blobs_on_disk() == []
    statuses = [file["status"] for file in http_api.ask("GET", "/v1/files").json["data"]]
    assert statuses == ([] if way == "form" else ["uploaded"])  # the announced file goes on waiting


def test_an_upload_that_stalls_is_given_up(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UPLOAD_STALL_S", 0.05)
    _, path = announce(http_api)
    answer = raw(http_api, f"PUT {path} HTTP/1.1\nHost: localhost\nContent-Length: 100\n\n", b"x")
    assert (answer.status, answer.error["code"]) == (400, "upload_interrupted")
    assert http_api.blobs_on_disk() == []


class FullDisk:
    def write(self, key: str, *, is_fresh: bool = False) -> object:
        raise BlobsFull("no space left")


class LockedFiles:
    async def by_id(self, file_id: str) -> object:
        raise StoreUnavailable("locked")

    async def page(self, *_: object, **__: object) -> object:
        raise StoreUnavailable("locked")


def test_a_full_disk_is_said_once_and_not_retried(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = announce(http_api)
    monkeypatch.setattr(http_api.services.files, "_blobs", FullDisk())
    body, kind = form([("purpose", None, b"batch"), ("file", "x", LINES)])
    answer = http_api.ask("POST", "/v1/files", body, {"Content-Type": kind})
    assert (answer.status, answer.error["code"]) == (507, "storage_full")
    assert answer.headers["x-should-retry"] == "false"
    put = http_api.ask("PUT", path, LINES)
    assert (put.status, put.error["code"]) == (400, "storage_full")


def test_a_locked_store_asks_for_patience_but_never_on_a_put(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = announce(http_api)
    monkeypatch.setattr(http_api.services.files, "_files", LockedFiles())
    answer = http_api.ask("GET", "/v1/files")
    assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    put = http_api.ask("PUT", path, LINES)
    assert (put.status, put.error["code"]) == (400, "storage_unavailable")
