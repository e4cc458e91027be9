"""Calls, retries, uploads and downloads against a scripted server."""

import email
import email.message
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prompt import Make

from lowtide import limits
from lowtide.cli.client.http_client import ServerRefused, ServerUnreachable
from lowtide.cli.terminal.command_errors import CommandError


def test_a_key_and_our_name_are_sent(scripted: Make) -> None:
    server = scripted(httpx.Response(200, json={"id": "batch_1"}))
    server.client.batch("batch_1")
    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer secret"
    assert headers["user-agent"].startswith("lowtide-cli/")
    assert str(server.requests[0].url) == "http://127.0.0.1:8000/openai/v1/batches/batch_1"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_as_late_as_it_wants(scripted: Make, status: int) -> None:
    busy = httpx.Response(status, headers={"Retry-After": "7"}, json=error("busy"))
    server = scripted(busy, httpx.Response(200, json={"id": "b"}))
    assert server.client.batch("b") == {"id": "b"}
    assert server.pauses == [7.0]


def test_a_wait_of_hours_is_cut(scripted: Make) -> None:
    busy = httpx.Response(429, headers={"Retry-After": "7200"}, json=error("busy"))
    server = scripted(busy, httpx.Response(200, json={"id": "b"}))
    server.client.batch("b")
    assert server.pauses == [limits.CLIENT_RETRY_AFTER_S_MAX]


def test_a_repeated_create_says_that_it_is_one(scripted: Make) -> None:
    server = scripted(
        httpx.Response(503, json=error("busy")), httpx.Response(200, json={"id": "b"})
    )
    server.client.create_batch("file-1", "/v1/chat/completions")
    assert "x-stainless-retry-count" not in server.requests[0].headers
    assert server.requests[1].headers["x-stainless-retry-count"] == "1"


def test_tries_are_bounded_and_the_last_refusal_is_told(scripted: Make) -> None:
    server = scripted(*[httpx.Response(503, json=error("full up"))] * limits.CLIENT_TRIES_MAX)
    with pytest.raises(ServerRefused, match="full up"):
        server.client.batch("b")
    assert len(server.pauses) == limits.CLIENT_TRIES_MAX - 1


def test_a_refusal_is_not_repeated(scripted: Make) -> None:
    server = scripted(httpx.Response(404, json=error("No batch found", code="batch_not_found")))
    with pytest.raises(ServerRefused) as caught:
        server.client.batch("b")
    assert caught.value.code == "batch_not_found"
    assert server.pauses == []


def test_a_server_that_was_never_there_is_told_at_once(scripted: Make) -> None:
    server = scripted(httpx.ConnectError("refused"))
    with pytest.raises(ServerUnreachable) as caught:
        server.client.batch("b")
    assert "lowtide serve" in str(caught.value.hint)
    assert server.pauses == []


def test_a_server_that_went_away_is_waited_for(scripted: Make) -> None:
    well = httpx.Response(200, json={"id": "b"})
    server = scripted(well, httpx.ConnectError("refused"), well)
    server.client.batch("b")
    assert server.client.batch("b") == {"id": "b"}
    assert len(server.pauses) == 1


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(404, text="nginx"),
        httpx.Response(200, json=["an", "array"]),
        httpx.Response(400, json={"error": "a string"}),
    ],
)
def test_another_kind_of_server_is_named_as_such(scripted: Make, reply: httpx.Response) -> None:
    with pytest.raises(ServerRefused, match="not what a Lowtide server sends"):
        scripted(reply).client.batch("b")


def test_an_upload_is_a_form_of_known_length_and_shows_its_progress(
    scripted: Make, tmp_path: Path
) -> None:
    path = tmp_path / 'a "b"\u00fc.jsonl'
    path.write_bytes(b"x" * (limits.STREAM_BLOCK_BYTES + 1))
    steps: list[tuple[int, int | None]] = []
    server = scripted(httpx.Response(200, json={"id": "file-1"}))
    server.client.upload(path, "batch-api", lambda done, total: steps.append((done, total)))

    request = server.requests[0]
    assert int(request.headers["content-length"]) == len(request.content)
    assert "transfer-encoding" not in request.headers
    purpose, file = parts_of(request)
    assert purpose.get_payload() == "batch-api"
    assert file.get_payload(decode=True) == path.read_bytes()
    assert steps[-1] == (limits.STREAM_BLOCK_BYTES + 1,) * 2


def parts_of(request: httpx.Request) -> list[email.message.Message]:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.content)
    return [part for part in message.walk() if not part.is_multipart()]


def test_a_broken_upload_begins_anew_with_the_whole_file(scripted: Make, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b"content")
    server = scripted(httpx.WriteError("reset"), httpx.Response(200, json={"id": "file-1"}))
    assert server.client.upload(path, "batch")["id"] == "file-1"
    assert b"content" in server.requests[1].content


def test_a_file_that_shrinks_while_it_is_sent_is_an_error(scripted: Make, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b"x" * 1000)
    server = scripted(httpx.Response(200, json={"id": "file-1"}))

    from lowtide.cli.client.multipart import FileForm

    form = FileForm(path, {"purpose": "batch"})
    path.write_bytes(b"x")
    with pytest.raises(CommandError, match="shorter"):
        list(form.blocks(lambda _done, _total: None))
    assert server.requests == []


class Broken(httpx.SyncByteStream):
    """A body whose connection breaks after some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self._data
        raise httpx.ReadError("reset")


def test_a_broken_download_goes_on_where_it_left_off(scripted: Make, tmp_path: Path) -> None:
    server = scripted(
        httpx.Response(200, stream=Broken(b"one\ntw"), headers={"Content-Length": "10"}),
        httpx.Response(206, content=b"o\nx\n"),
    )
    target = tmp_path / "out.jsonl"
    copied = server.client.download("file-1", target)
    assert target.read_bytes() == b"one\ntwo\nx\n"
    assert (copied.bytes, copied.lines) == (10, 3)
    assert server.requests[1].headers["range"] == "bytes=6-"


def test_a_server_without_ranges_sends_it_again_and_nothing_doubles(
    scripted: Make, tmp_path: Path
) -> None:
    server = scripted(
        httpx.Response(200, stream=Broken(b"one\ntw"), headers={"Content-Length": "8"}),
        httpx.Response(200, content=b"one\ntwo\n"),
    )
    target = tmp_path / "out.jsonl"
    server.client.download("file-1", target)
    assert target.read_bytes() == b"one\ntwo\n"


def test_a_download_that_fails_leaves_the_old_file_alone(scripted: Make, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    broken = [httpx.Response(200, stream=Broken(b"")) for _ in range(limits.CLIENT_TRIES_MAX)]
    with pytest.raises(ServerUnreachable):
        scripted(*broken).client.download("file-1", target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def error(message: str, code: str | None = None) -> dict[str, object]:
    return {"error": {"message": message, "type": "t", "param": None, "code": code}}


def test_a_proxy_that_takes_no_body_of_this_size_is_named(scripted: Make) -> None:
    page = httpx.Response(413, html="<h1>413 Request Entity Too Large</h1>nginx")
    with pytest.raises(ServerRefused) as refused:
        scripted(page).client.create_batch("file-1", "/v1/chat/completions")
    assert refused.value.code == "request_too_large"
    assert "proxy" in refused.value.message
    assert "client_max_body_size" in (refused.value.hint or "")
