"""Pages of other origins that the operator allows: what a browser asks before it lets them read.

`app` puts it around everything where `server.allowed_origins` names any. Guards: only those origins
are named in an answer, never "*"; no cookie is in play, a key is sent by the page itself.
"""

from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lowtide.config.exposure import origin_of

_EXPOSED: Final = (
    b"x-request-id, retry-after, location, x-ratelimit-limit-requests,"
    b" x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens,"
    b" x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_PREFLIGHT_S: Final = b"600"


class CorsMiddleware:
    """ASGI middleware: CORS for the origins of a setting."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = {each.encode() for text in origins if (each := origin_of(text))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        origin = headers.get(b"origin", b"").lower()
        if origin not in self._origins:
            await self._app(scope, receive, send)
            return
        fields = [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            asked = headers.get(b"access-control-request-headers", b"")
            fields += [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", asked),
                (b"access-control-max-age", _PREFLIGHT_S),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": fields})
            await send({"type": "http.response.body", "body": b""})
            return
        fields.append((b"access-control-expose-headers", _EXPOSED))

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *fields]}
            await send(message)

        await self._app(scope, receive, named)
