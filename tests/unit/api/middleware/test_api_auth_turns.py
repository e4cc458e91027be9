"""GETs of one organization do not keep those of another from the database."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from lowtide import limits
from lowtide.api.middleware import auth as guard_module
from lowtide.api.middleware.auth import AuthMiddleware
from lowtide.api.middleware.caller import DEFAULT_CALLER, Caller


class Database:
    """An application whose every call waits until it is served, and then answers in two pieces."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.waiting: list[asyncio.Event] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.append(scope["state"]["caller"].organization_id)
        served = asyncio.Event()
        self.waiting.append(served)
        await served.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})


async def nothing() -> Message:
    return {"type": "http.request", "body": b""}


async def taken(_: Message) -> None:
    """A client that reads."""


async def settle() -> None:
    for _ in range(9):
        await asyncio.sleep(0)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    async def admit(request: HTTPConnection) -> Caller:
        return replace(DEFAULT_CALLER, organization_id=request.headers["x-org"])

    async def any_rate(_: HTTPConnection, __: Caller) -> None:
        """Of calls, here."""

    monkeypatch.setattr(guard_module, "admit", admit)
    monkeypatch.setattr(guard_module, "check_rate", any_rate)
    return Database()


def call(
    guard: AuthMiddleware, owner: str, send: Send = taken, **more: Any
) -> "asyncio.Task[None]":
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/files",
        "headers": [(b"x-org", owner.encode())],
        "state": {},
        **more,
    }

    async def answered() -> None:
        await guard(scope, nothing, send)

    return asyncio.create_task(answered())


async def test_a_newcomer_waits_for_one_call_of_each_other_organization(database: Database) -> None:
    guard = AuthMiddleware(database)
    calls = [call(guard, owner) for _ in range(50) for owner in ("a", "b", "c")]
    await settle()
    assert len(database.begun) == limits.READS_AT_ONCE
    assert max(database.begun.count(owner) for owner in "abc") <= limits.READS_AT_ONCE // 2
    calls.append(call(guard, "new"))
    await settle()
    for number in range(4):
        database.waiting[number].set()
        await settle()
    assert "new" in database.begun
    for served in database.waiting:
        served.set()
    while len(database.begun) < len(calls):
        await settle()
        database.waiting[-1].set()
        for served in database.waiting:
            served.set()
    await asyncio.gather(*calls)


async def test_a_client_that_reads_slowly_has_no_turn_any_more(database: Database) -> None:
    guard, stuck = AuthMiddleware(database), asyncio.Event()

    async def slow(_: Message) -> None:
        await stuck.wait()

    calls = [call(guard, owner, slow) for owner in "abcdefgh" for _ in range(2)]
    await settle()
    for _ in range(2):
        for served in list(database.waiting):
            served.set()
        await settle()
    assert len(database.begun) == len(calls), "although not one answer was taken"
    stuck.set()
    await asyncio.gather(*calls)


@pytest.mark.parametrize("other", [{"method": "POST"}, {"path": "/v1/files/f/content"}])
async def test_uploads_and_downloads_take_no_turn(database: Database, other: Any) -> None:
    guard = AuthMiddleware(database)
    calls = [call(guard, "a", **other) for _ in range(3 * limits.READS_AT_ONCE)]
    await settle()
    assert len(database.begun) == len(calls)
    for served in database.waiting:
        served.set()
    await asyncio.gather(*calls)


async def test_a_caller_that_leaves_gives_its_turn_back(database: Database) -> None:
    guard = AuthMiddleware(database)
    calls = [call(guard, owner) for owner in "ab" for _ in range(limits.READS_AT_ONCE)]
    await settle()
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    before = len(database.begun)
    again = call(guard, "c")
    await settle()
    assert database.begun[before:] == ["c"]
    database.waiting[-1].set()
    await again
