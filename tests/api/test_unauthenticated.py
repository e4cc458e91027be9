"""What a caller may take of a server, before its key is seen and with one."""

import select
import socket
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path

import pytest
from api_server import Answer, answer_of
from structlog.testing import capture_logs
from tenant_env import CHAT, Env, Tenant, open_house

from lowtide import limits
from lowtide.config import LimitSettings

MIB = 1024 * 1024
PATIENCE_S = 60.0


def begin(env: Env, tenant: Tenant, length: int, sent: int) -> socket.socket:
    """A live call whose body stops short."""
    line = socket.create_connection(("127.0.0.1", env.http_api.port), timeout=PATIENCE_S)
    line.sendall(
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {tenant.key}\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
    )
    line.sendall(b" " * sent)
    return line


def answer(line: socket.socket) -> Answer:
    response = HTTPResponse(line)
    response.begin()
    return answer_of(response)


def answered(lines: list[socket.socket], count: int) -> list[socket.socket]:
    """The first so many of them that have an answer."""
    found: list[socket.socket] = []
    while len(found) < count:
        readable, _, _ = select.select([each for each in lines if each not in found], [], [])
        found += readable
    return found


def test_bodies_in_memory_are_shared_and_nobody_takes_the_room_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JSON_BODIES_BYTES_MAX", 6 * MIB)
    with open_house(tmp_path) as env, ExitStack() as open_lines:
        greedy, other = env.tenant("greedy"), env.tenant("other")
        lines = [open_lines.enter_context(begin(env, greedy, 4 * MIB, MIB)) for _ in range(6)]
        for line in answered(lines, 3):  # six are sent, and half of the room is three
            refused = answer(line)
            assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
            assert int(refused.headers["retry-after"]) >= 1
        assert other.ask("POST", CHAT, b" " * MIB).status == 400, "read, and no JSON object"
        open_lines.close()
        assert greedy.ask("POST", CHAT, b" " * 4 * MIB).status == 429, "more than half at once"


def test_the_limit_of_calls_is_asked_before_the_body_is_read(tmp_path: Path) -> None:
    with (
        open_house(tmp_path, LimitSettings(live_requests_per_minute=1)) as env,
        ExitStack() as lines,
    ):
        tenant = env.tenant()
        # More than there are models, each of which has one call: nobody knows yet whose these are.
        begun = [lines.enter_context(begin(env, tenant, 16 * MIB, 1)) for _ in range(8)]
        refused = answer(answered(begun, 1)[0])
        assert refused.status == 429
        assert refused.headers["x-ratelimit-limit-requests"] == "1"


def test_wrong_keys_are_one_line_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_house(tmp_path) as env, capture_logs() as log:
        with monkeypatch.context() as patch:
            patch.setattr(limits, "REFUSAL_LOG_S", 1e9)
            for number in range(40):
                wrong = {"authorization": f"Bearer lt-guess{number}-x"}
                assert env.http_api.ask("GET", "/v1/files", headers=wrong).status == 401
        monkeypatch.setattr(limits, "REFUSAL_LOG_S", 0.0)
        env.http_api.ask("GET", "/v1/files", headers=wrong)
        lines = [(each["event"], each.get("count", 1)) for each in log]
    assert lines == [("key.refused", 1), ("audit", 1), ("key.refused", 40), ("audit", 40)]


def test_a_wrong_key_waits_for_no_body(tmp_path: Path) -> None:
    with open_house(tmp_path) as env:
        tenant = env.tenant()
        tenant.key = "lt-wrong-x"
        with begin(env, tenant, 16 * MIB, 10) as line:
            assert answer(line).status == 401
