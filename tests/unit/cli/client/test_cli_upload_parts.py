"""Large files in parts, against a scripted server."""

import json
from pathlib import Path

import httpx
import pytest
from prompt import Make, Scripted

from lowtide import limits
from lowtide.cli.client.http_client import ServerRefused, ServerUnreachable
from lowtide.cli.terminal.command_errors import CommandError

BEGUN = httpx.Response(200, json={"id": "upload_1"})
DONE = httpx.Response(200, json={"id": "upload_1", "file": {"id": "file-1"}})
FILE = httpx.Response(200, json={"id": "file-1"})


def part(number: int) -> httpx.Response:
    return httpx.Response(200, json={"id": f"part_{number}"})


def refused(status: int, code: str = "no") -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": code, "code": code}})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of three parts, the last one short."""
    monkeypatch.setattr(limits, "CLIENT_PARTS_ABOVE_BYTES", 15)
    monkeypatch.setattr(limits, "UPLOAD_PART_BYTES_MAX", 10)
    path = tmp_path / "big.jsonl"
    path.write_bytes(b"0123456789abcdefghijXYZ")
    return path


def sent(server: Scripted) -> list[str]:
    return [request.url.path.removeprefix("/openai/v1") for request in server.requests]


def test_a_large_file_goes_up_part_by_part_and_shows_its_progress(
    scripted: Make, path: Path
) -> None:
    server = scripted(BEGUN, part(1), part(2), part(3), DONE)
    steps: list[tuple[int, int | None]] = []
    file = server.client.upload(path, "batch", lambda done, total: steps.append((done, total)))
    assert file == {"id": "file-1"}
    assert json.loads(server.requests[0].content) == {
        "bytes": 23,
        "filename": "big.jsonl",
        "mime_type": "application/jsonl",
        "purpose": "batch",
    }
    for request, data in zip(
        server.requests[1:4], (b"0123456789", b"abcdefghij", b"XYZ"), strict=True
    ):
        assert b'name="data"' in request.content
        assert b"\r\n\r\n" + data + b"\r\n--" in request.content
        assert int(request.headers["content-length"]) == len(request.content)
    assert json.loads(server.requests[4].content) == {"part_ids": ["part_1", "part_2", "part_3"]}
    assert steps == [(10, 23), (20, 23), (23, 23)]


def test_only_the_part_that_broke_is_sent_again(scripted: Make, path: Path) -> None:
    server = scripted(BEGUN, part(1), httpx.ReadError("cut"), part(2), part(3), DONE)
    server.client.upload(path, "batch")
    assert sent(server).count("/uploads/upload_1/parts") == 4
    assert b"abcdefghij" in server.requests[3].content
    assert json.loads(server.requests[5].content)["part_ids"] == ["part_1", "part_2", "part_3"]


def test_a_completion_that_takes_long_is_asked_for_again(scripted: Make, path: Path) -> None:
    slow = httpx.ReadTimeout("slow")
    server = scripted(BEGUN, part(1), part(2), part(3), slow, slow, DONE)
    assert server.client.upload(path, "batch") == {"id": "file-1"}


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_parts_gets_the_file_whole(
    scripted: Make, path: Path, status: int
) -> None:
    server = scripted(refused(status), FILE)
    assert server.client.upload(path, "batch") == {"id": "file-1"}
    assert sent(server) == ["/uploads", "/files"]


def test_a_small_file_goes_up_whole(scripted: Make, path: Path) -> None:
    path.write_bytes(b"x" * 15)
    server = scripted(FILE)
    server.client.upload(path, "batch")
    assert sent(server) == ["/files"]


def test_what_the_server_refuses_is_cancelled_there(scripted: Make, path: Path) -> None:
    server = scripted(BEGUN, refused(413, "file_too_large"), httpx.Response(200, json={}))
    with pytest.raises(ServerRefused, match="file_too_large"):
        server.client.upload(path, "batch")
    assert sent(server)[-1] == "/uploads/upload_1/cancel"
    refusing = scripted(refused(413, "file_too_large"))
    with pytest.raises(ServerRefused, match="file_too_large"):
        refusing.client.upload(path, "batch")


def test_a_file_that_shrinks_meanwhile_is_given_up(scripted: Make, path: Path) -> None:
    server = scripted(BEGUN, httpx.Response(200, json={}))
    server.client._http._http.event_hooks["response"] = [lambda _: path.write_bytes(b"012")]
    with pytest.raises(CommandError, match="became shorter"):
        server.client.upload(path, "batch")
    assert sent(server)[-1] == "/uploads/upload_1/cancel"


def test_a_server_that_is_gone_is_not_asked_to_cancel(scripted: Make, path: Path) -> None:
    server = scripted(BEGUN, *[httpx.ConnectError("gone")] * limits.CLIENT_TRIES_MAX)
    with pytest.raises(ServerUnreachable):
        server.client.upload(path, "batch")
    assert "/uploads/upload_1/cancel" not in sent(server)


def test_an_answer_without_a_file_is_no_lowtides(scripted: Make, path: Path) -> None:
    server = scripted(BEGUN, part(1), part(2), part(3), httpx.Response(200, json={"id": "u"}))
    with pytest.raises(CommandError, match="has no file"):
        server.client.upload(path, "batch")
