"""Waiting for a batch: when to look again, and what to do while nobody answers."""

from typing import Any

import httpx
import pytest
from prompt import Make, Scripted

from lowtide import limits
from lowtide.cli.client.http_client import ServerRefused, ServerUnreachable
from lowtide.cli.client.objects import BatchView, JsonObject
from lowtide.cli.client.wait import pause_s, watch
from lowtide.cli.terminal.progress import BatchBar


def answer(status: str, completed: int = 0, **fields: Any) -> httpx.Response:
    counts = {"total": 4, "completed": completed, "failed": 0}
    return httpx.Response(
        200, json={"id": "b", "status": status, "request_counts": counts} | fields
    )


class Clock:
    """Time passes only while the watcher sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def follow(server: Scripted, clock: Clock, **options: Any) -> tuple[JsonObject, list[str]]:
    seen: list[str] = []

    def take(_answer: JsonObject, batch: BatchView) -> None:
        seen.append(batch.status)

    end = watch(
        server.client,
        "b",
        BatchBar(quiet=True),
        on_change=take,
        clock=clock,
        sleep=clock.sleep,
        **options,
    )
    return end, seen


def test_it_ends_with_the_batch_and_tells_each_change_once(scripted: Make) -> None:
    running = answer("in_progress", 2)
    server = scripted(answer("validating"), running, running, answer("completed", 4))
    end, seen = follow(server, Clock())
    assert end["status"] == "completed"
    assert seen == ["validating", "in_progress", "completed"]


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_every_end_is_an_end(scripted: Make, status: str) -> None:
    assert follow(scripted(answer(status)), Clock())[0]["status"] == status


def test_a_server_that_restarts_is_waited_for(scripted: Make) -> None:
    refused = [httpx.ConnectError("refused")] * limits.CLIENT_TRIES_MAX
    server = scripted(answer("in_progress"), *refused, answer("completed", 4))
    assert follow(server, Clock())[0]["status"] == "completed"


def test_a_server_that_stays_away_is_an_error(scripted: Make) -> None:
    refused = [httpx.ConnectError("refused")] * (limits.CLIENT_TRIES_MAX * 20)
    server = scripted(answer("in_progress"), *refused)
    with pytest.raises(ServerUnreachable):
        follow(server, Clock(), outage_s_max=2.0)


def test_a_batch_that_is_gone_is_an_error_at_once(scripted: Make) -> None:
    gone = httpx.Response(404, json={"error": {"message": "No batch found", "code": "x"}})
    with pytest.raises(ServerRefused):
        follow(scripted(answer("in_progress"), gone), Clock())


@pytest.mark.parametrize(
    ("watched_s", "eta_s", "expected"),
    [
        (0.0, None, limits.WATCH_POLL_S_MIN),
        (60.0, None, 3.0),
        (3600.0, None, limits.WATCH_POLL_S_MAX),
        (3600.0, 2.0, 1.0),
        (3600.0, 0.0, limits.WATCH_POLL_S_MIN),
    ],
)
def test_looks_grow_rarer_with_time_and_denser_near_the_end(
    watched_s: float, eta_s: float | None, expected: float
) -> None:
    assert pause_s(watched_s, eta_s, limits.WATCH_POLL_S_MAX) == pytest.approx(expected)


def test_off_a_terminal_each_state_is_told_once(
    scripted: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    server = scripted(
        answer("in_progress", 1, reason="No replica serves the model m."),
        answer("in_progress", 2, reason="No replica serves the model m."),
        answer("completed", 4),
    )
    clock = Clock()
    watch(server.client, "b", BatchBar(), clock=clock, sleep=clock.sleep)
    reported = capsys.readouterr().err.splitlines()
    assert reported == ["batch b: running (No replica serves the model m.)", "batch b: completed"]
