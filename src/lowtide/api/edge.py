"""The outermost middleware: request id, headers on every answer, and the net under everything.

One of the two places that may catch Exception (style.md): what no handler expected is logged once,
with its traceback, and the client gets a 500 that names the request and shows nothing of the
inside.
"""

import secrets
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lowtide import limits
from lowtide.api import metrics
from lowtide.api.errors import as_lowtide_error, envelope, error_response

_log = structlog.get_logger("lowtide.api")

_HEADERS: Final = [
    (
        b"x-content-type-options",
        b"nosniff",
    ),  # results hold text of strangers: never sniff HTML in it
    (b"cache-control", b"no-store"),
]


class Edge:
    """ASGI middleware. Guards: every answer has `x-request-id`, no exception leaves."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(b"x-request-id", request_id.encode()), *_HEADERS]
                message = {**message, "headers": [*message.get("headers", []), *headers]}
            await send(message)

        try:
            if not await _refuse_oversized(scope, receive, stamped):
                await self._app(scope, receive, stamped)
        except Exception as error:  # noqa: BLE001 - the edge, see above
            if status:
                # Too late for an envelope: the connection ends before Content-Length is reached, so
                # the client knows that what it has is not whole.
                _log.exception("answer broken off", request_id=request_id, path=scope["path"])
            elif (known := as_lowtide_error(error)) is not None:
                await error_response(known)(scope, receive, stamped)
            else:
                _log.exception("request failed", request_id=request_id, path=scope["path"])
                response = envelope(
                    500,
                    f"The server made a mistake. Its log says more under {request_id}.",
                    "internal_error",
                )
                await response(scope, receive, stamped)
        finally:
            metrics.REQUESTS.labels(scope["method"], status).inc()


async def _refuse_oversized(scope: Scope, receive: Receive, send: Send) -> bool:
    """Bound address and headers here as well: httptools, unlike h11, has no bound of its own."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > limits.URL_BYTES_MAX:
        refusal = envelope(414, f"The address is longer than {limits.URL_BYTES_MAX} bytes.", None)
    elif sum(len(n) + len(v) for n, v in scope["headers"]) > limits.REQUEST_HEADERS_BYTES_MAX:
        text = f"The headers are larger than {limits.REQUEST_HEADERS_BYTES_MAX} bytes."
        refusal = envelope(431, text, None)
    else:
        return False
    await refusal(scope, receive, send)
    return True
