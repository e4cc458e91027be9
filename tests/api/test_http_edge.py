"""The HTTP server itself: each spelling of a path, one envelope for errors, the net underneath."""

import json
import socket
from http.client import HTTPResponse

import pytest
import structlog
from api_server import ApiServer, answer_of

from lowtide import limits
from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.config import AuthSettings, ServerSettings, Settings
from lowtide.ports.blobs import BlobsUnavailable
from testkit.patience import PATIENCE_S


async def unreachable(*_: object) -> int:
    raise BlobsUnavailable("the disk is gone")


def test_health_and_metrics_answer(http_api: ApiServer) -> None:
    assert http_api.ask("GET", "/health").json == {"status": "ok"}
    http_api.ask("GET", "/nowhere")
    text = http_api.ask("GET", "/metrics").body.decode()
    assert 'lowtide_http_requests_total{method="GET",status="404"}' in text


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_probes_may_ask_for_the_head_alone(http_api: ApiServer, path: str) -> None:
    answer = http_api.ask("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")


def test_readiness_is_lost_with_the_storage_and_with_the_order_to_stop(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert http_api.ask("GET", "/ready").json == {"status": "ready"}
    monkeypatch.setattr(limits, "READY_FRESH_S", 0.0)
    with monkeypatch.context() as cut:
        cut.setattr(FolderBlobs, "size", unreachable)
        answer = http_api.ask("GET", "/ready")
    assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
    assert http_api.ask("GET", "/ready").status == 200
    http_api.services.readiness.begin_drain()
    answer = http_api.ask("GET", "/ready")
    assert (answer.status, answer.error["code"]) == (503, "server_stopping")
    assert http_api.ask("GET", "/health").status == 200, (
        "it lives, and must not be restarted for that"
    )


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
    http_api: ApiServer, method: str, path: str, status: int, code: str | None
) -> None:
    answer = http_api.ask(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_405_names_every_method_of_the_path(http_api: ApiServer) -> None:
    answer = http_api.ask("PATCH", "/v1/files")
    assert answer.headers["allow"] == "GET, POST"


def test_headers_have_a_bound(http_api: ApiServer) -> None:
    many = {f"x-{n}": "v" * 1000 for n in range(70)}
    assert http_api.ask("GET", "/health", headers=many).status == 431


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff", b'{"a":\xff}'])
def test_a_body_that_is_no_json_object_is_refused(http_api: ApiServer, body: bytes) -> None:
    answer = http_api.ask("POST", "/v1/batches", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


def test_a_json_body_has_a_bound_whether_its_length_is_told_or_not(http_api: ApiServer) -> None:
    body = json.dumps({"input_file_id": "x" * limits.JSON_BODY_BYTES_MAX}).encode()
    for sent in (body, iter([body])):
        answer = http_api.ask("POST", "/v1/batches", sent)
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_a_mistake_of_ours_is_logged_once_and_shows_nothing(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> object:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(http_api.services.files, "get", broken)
    with structlog.testing.capture_logs() as logs:
        answer = http_api.ask("GET", "/v1/files/file-x")
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert answer.error["type"] == "server_error"
    assert b"secret" not in answer.body
    assert answer.headers["x-request-id"] in answer.error["message"]
    assert [log["event"] for log in logs] == ["request failed"]
    assert logs[0]["request_id"] == answer.headers["x-request-id"]


def test_the_rest_of_a_huge_refused_body_is_not_waited_for(http_api: ApiServer) -> None:
    with socket.create_connection(("127.0.0.1", http_api.port), timeout=PATIENCE_S) as line:
        line.sendall(
            b"POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n{"
        )
        response = HTTPResponse(line)
        response.begin()
        answer = answer_of(response)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


def test_credentials_of_any_kind_are_taken_in_open_mode(http_api: ApiServer) -> None:
    for headers in ({}, {"Authorization": "Bearer k"}, {"X-Api-Key": "k"}):
        assert http_api.ask("GET", "/v1/files", headers=headers).status == 200


def test_an_api_that_cannot_check_keys_does_not_start(
    http_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = Settings(
        server=ServerSettings(data_dir=http_api.folder), auth=AuthSettings(mode="keys")
    )
    object.__setattr__(http_api.services, "settings", locked)
    for path in ("/v1/files", "/v1/batches", "/v1/models", "/v1/whoami"):
        answer = http_api.ask("GET", path, headers={"Authorization": "Bearer k"})
        assert (answer.status, answer.error["type"]) == (401, "authentication_error")


@pytest.mark.parametrize(
    "path",
    ["/v1/files", "/files", "/v1/v1/files", "/v1/files/", "//v1//files", "/openai/v1/files"],
)
def test_the_list_of_files_is_found_under_every_spelling(http_api: ApiServer, path: str) -> None:
    assert http_api.ask("GET", path).json["has_more"] is False


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
    http_api: ApiServer, headers: dict[str, str], together: bool
) -> None:
    assert ("has_more" not in http_api.ask("GET", "/v1/files", headers=headers).json) is together
    assert "has_more" in http_api.ask("GET", "/openai/v1/files", headers=headers).json
    assert "has_more" not in http_api.ask("GET", "/together/v1/files", headers=headers).json
