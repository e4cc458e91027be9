"""The edge: an id on every answer, and no exception gets past it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from lowtide.api.middleware.request_id import RequestIdMiddleware
from lowtide.ports.blobs import BlobsUnavailable

App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def run(app: App, headers: list[tuple[bytes, bytes]] | None = None) -> list[Message]:
    """What a server would have been told to send."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/x",
        "raw_path": b"/x",
        "query_string": b"",
        "headers": headers or [],
    }
    await RequestIdMiddleware(app)(scope, receive, send)
    return sent


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(b"ok")(scope, receive, send)


def headers_of(sent: list[Message]) -> dict[bytes, bytes]:
    return dict(sent[0]["headers"])


async def test_every_answer_has_its_own_id() -> None:
    ids = {headers_of(await run(answering))[b"x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert headers_of(await run(answering))[b"x-content-type-options"] == b"nosniff"


async def test_a_client_that_left_is_no_mistake_of_ours() -> None:
    async def abandoned(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    with structlog.testing.capture_logs() as logs:
        sent = await run(abandoned)
    assert (sent[0]["status"], logs) == (400, [])


async def test_a_mistake_becomes_a_500_that_names_the_request() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("inside")

    with structlog.testing.capture_logs() as logs:
        sent = await run(broken)
    assert sent[0]["status"] == 500
    message = json.loads(sent[1]["body"])["error"]["message"]
    assert headers_of(sent)[b"x-request-id"].decode() in message
    assert "inside" not in message
    assert [log["event"] for log in logs] == ["request failed"]


@pytest.mark.parametrize(
    ("error", "event"),
    [(BlobsUnavailable(), "answer broken off"), (ValueError(), "request failed")],
)
async def test_an_answer_that_had_begun_is_broken_off_and_not_repaired(
    error: Exception, event: str
) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("wrapped") from error

    with structlog.testing.capture_logs() as logs:
        sent = await run(half)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[-1]["more_body"]
    assert [log["event"] for log in logs] == [event]


async def test_only_a_huge_refused_body_costs_the_connection() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(status_code=413)(scope, receive, send)

    huge, large = [(b"content-length", b"9999999999")], [(b"content-length", b"99999999")]
    assert headers_of(await run(refusing, huge))[b"connection"] == b"close"
    assert b"connection" not in headers_of(await run(refusing, large))
    assert b"connection" not in headers_of(await run(answering, huge))
