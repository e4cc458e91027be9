"""Pages of allowed origins: what their browsers ask before they may read."""

from typing import Any

from connection_cases import answering
from starlette.types import ASGIApp, Message

from lowtide.api.middleware.cors import CorsMiddleware
from lowtide.config import ServerSettings, Settings

PAGE = "http://localhost:3000"


async def ask(app: ASGIApp, method: str = "GET", **headers: str) -> tuple[int, dict[str, str]]:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "method": method, "headers": raw, "state": {}}
    await app(scope, receive, send)
    fields = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return messages[0]["status"], fields


async def test_a_page_of_an_allowed_origin_may_read_answers_and_refusals() -> None:
    for status in (200, 401):
        app = CorsMiddleware(answering(status), [f"{PAGE}"])
        answered, headers = await ask(app, origin=PAGE)
        assert answered == status
        assert headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in headers["access-control-expose-headers"]


async def test_a_preflight_of_an_allowed_origin_is_answered() -> None:
    app = CorsMiddleware(answering(500), [PAGE])
    asked = {
        "access_control_request_method": "POST",
        "access_control_request_headers": "authorization,content-type",
    }
    status, headers = await ask(app, "OPTIONS", origin=PAGE, **asked)
    assert status == 204
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-headers"] == "authorization,content-type"
    assert "DELETE" in headers["access-control-allow-methods"]


async def test_no_other_origin_is_named_and_never_a_star() -> None:
    app = CorsMiddleware(answering(), [PAGE])
    for origin in ("http://localhost:3001", "https://localhost:3000", "null", ""):
        _, headers = await ask(app, origin=origin)
        assert "access-control-allow-origin" not in headers
    assert Settings(server=ServerSettings()).server.allowed_origins == ()
