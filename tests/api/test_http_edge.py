"""The door itself: paths in every spelling, one envelope for every error, the net underneath."""

import json
import socket
from http.client import HTTPResponse

import pytest
import structlog
from api_server import Door, answer_of

from lowtide import limits
from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.config import Auth, Server, Settings
from lowtide.ports.blobs import BlobsUnavailable
from testkit.patience import PATIENCE_S


async def unreachable(*_: object) -> int:
    raise BlobsUnavailable("the disk is gone")


def test_health_and_metrics_answer(door: Door) -> None:
    assert door.ask("GET", "/health").json == {"status": "ok"}
    door.ask("GET", "/nowhere")
    text = door.ask("GET", "/metrics").body.decode()
    assert 'lowtide_http_requests_total{method="GET",status="404"}' in text


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_probes_may_ask_for_the_head_alone(door: Door, path: str) -> None:
    answer = door.ask("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")


def test_readiness_is_lost_with_the_storage_and_with_the_order_to_stop(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert door.ask("GET", "/ready").json == {"status": "ready"}
    monkeypatch.setattr(limits, "READY_FRESH_S", 0.0)
    with monkeypatch.context() as cut:
        cut.setattr(FolderBlobs, "size", unreachable)
        answer = door.ask("GET", "/ready")
    assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
    assert door.ask("GET", "/ready").status == 200
    door.services.readiness.begin_drain()
    answer = door.ask("GET", "/ready")
    assert (answer.status, answer.error["code"]) == (503, "server_stopping")
    assert door.ask("GET", "/health").status == 200, "it lives, and must not be restarted for that"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("POST", "/v1/nowhere", 404, "not_found"),
        ("PATCH", "/v1/files", 405, "method_not_allowed"),
        ("PUT", "/v1/batches", 405, "method_not_allowed"),
        ("GET", "/v1/files/multipart/initiate", 405, "method_not_allowed"),
        ("GET", "/v1/files?limit=10001", 400, "invalid_request"),
        ("GET", "/v1/files?order=up", 400, "invalid_request"),
        ("GET", "/v1/files/nope", 404, "file_not_found"),
        ("GET", "/v1/batches/nope", 404, "batch_not_found"),
        ("GET", "/v1/models/nope/nope", 404, "model_not_found"),
        ("GET", "/" + "x" * 9000, 414, None),
        ("GET", "/v1/files?" + "x" * 9000, 414, None),
    ],
)
def test_every_refusal_is_in_the_envelope(
    door: Door, method: str, path: str, status: int, code: str | None
) -> None:
    answer = door.ask(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_405_names_every_method_of_the_path(door: Door) -> None:
    answer = door.ask("PATCH", "/v1/files")
    assert answer.headers["allow"] == "GET, POST"


def test_headers_have_a_bound(door: Door) -> None:
    many = {f"x-{n}": "v" * 1000 for n in range(70)}
    assert door.ask("GET", "/health", headers=many).status == 431


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff", b'{"a":\xff}'])
def test_a_body_that_is_no_json_object_is_refused(door: Door, body: bytes) -> None:
    answer = door.ask("POST", "/v1/batches", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


def test_a_json_body_has_a_bound_whether_its_length_is_told_or_not(door: Door) -> None:
    body = json.dumps({"input_file_id": "x" * limits.JSON_BODY_BYTES_MAX}).encode()
    for sent in (body, iter([body])):
        answer = door.ask("POST", "/v1/batches", sent)
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_a_mistake_of_ours_is_logged_once_and_shows_nothing(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> object:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(door.services.files, "get", broken)
    with structlog.testing.capture_logs() as logs:
        answer = door.ask("GET", "/v1/files/file-x")
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert answer.error["type"] == "server_error"
    assert b"secret" not in answer.body
    assert answer.headers["x-request-id"] in answer.error["message"]
    assert [log["event"] for log in logs] == ["request failed"]
    assert logs[0]["request_id"] == answer.headers["x-request-id"]


def test_the_rest_of_a_huge_refused_body_is_not_waited_for(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=PATIENCE_S) as line:
        line.sendall(
            b"POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n{"
        )
        response = HTTPResponse(line)
        response.begin()
        answer = answer_of(response)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


def test_credentials_of_any_kind_are_taken_in_open_mode(door: Door) -> None:
    for headers in ({}, {"Authorization": "Bearer k"}, {"X-Api-Key": "k"}):
        assert door.ask("GET", "/v1/files", headers=headers).status == 200


def test_a_door_that_cannot_check_keys_does_not_open(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = Settings(server=Server(data_dir=door.folder), auth=Auth(mode="keys"))
    object.__setattr__(door.services, "settings", locked)
    for path in ("/v1/files", "/v1/batches", "/v1/models", "/v1/whoami"):
        answer = door.ask("GET", path, headers={"Authorization": "Bearer k"})
        assert (answer.status, answer.error["type"]) == (401, "authentication_error")


@pytest.mark.parametrize(
    "path",
    ["/v1/files", "/files", "/v1/v1/files", "/v1/files/", "//v1//files", "/openai/v1/files"],
)
def test_the_list_of_files_is_found_under_every_spelling(door: Door, path: str) -> None:
    assert door.ask("GET", path).json["has_more"] is False


@pytest.mark.parametrize(
    ("headers", "together"),
    [
        ({}, False),
        ({"User-Agent": "Together/Python 3.1.1"}, True),
        ({"User-Agent": "AsyncTogether/Python 2.0.0"}, True),
        ({"User-Agent": "Together/v1 PythonBindings/1.6.0"}, True),
        ({"X-Together-Client-User-Agent": "{}"}, True),
        ({"User-Agent": "OpenAI/Python 3.51.0"}, False),
        ({"User-Agent": "BatchOpenAI/Python 2.54.0"}, False),
        ({"User-Agent": "curl/7.88"}, False),
    ],
)
def test_a_list_has_the_shape_its_client_reads(
    door: Door, headers: dict[str, str], together: bool
) -> None:
    assert ("has_more" not in door.ask("GET", "/v1/files", headers=headers).json) is together
    assert "has_more" in door.ask("GET", "/openai/v1/files", headers=headers).json
    assert "has_more" not in door.ask("GET", "/together/v1/files", headers=headers).json
