"""The outermost middleware: request id, headers on every answer, and the handler of unexpected
exceptions.

One of the two places that may catch Exception (style.md): what no handler expected is
logged once, with its traceback, and the client gets a 500 that names the request and
shows nothing of the inside.
"""

import secrets
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lowtide import limits
from lowtide.api.http.errors import as_lowtide_error, envelope, error_response
from lowtide.core.errors import LowtideError
from lowtide.telemetry import metrics
from lowtide.telemetry.labels import Bounded

_log = structlog.get_logger("lowtide.api")

_METHODS: Final = Bounded(limits.METRIC_METHODS_MAX)

_HEADERS: Final = [
    (
        b"x-content-type-options",
        b"nosniff",
    ),  # results hold text of others: never sniff HTML in it
    (b"cache-control", b"no-store"),
]


class RequestIdMiddleware:
    """ASGI middleware. Guards: every answer has `x-request-id`, no exception leaves."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"
        scope = {**scope, "state": {**scope.get("state", {}), "request_id": request_id}}
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(b"x-request-id", request_id.encode()), *_HEADERS]
                if status >= 400 and _declared(scope) > limits.REFUSED_BODY_BYTES_MAX:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": [*message.get("headers", []), *headers]}
            await send(message)

        try:
            if not await _refuse_oversized(scope, receive, stamped):
                await self._app(scope, receive, stamped)
        except Exception as error:  # noqa: BLE001 - the edge, see above
            known = _known(error)
            if known is None:
                _log.exception("request failed", request_id=request_id, path=scope["path"])
                known = LowtideError(
                    "internal_error",
                    f"The server made a mistake. Its log says more under {request_id}.",
                )
            elif status:
                _log.error("answer broken off", request_id=request_id, reason=known.message)
            if not status:
                await error_response(known)(scope, receive, stamped)
            # Else too late for an envelope: uvicorn closes the connection short of Content-Length,
            # so the client knows that what it has is not whole.
        finally:
            metrics.REQUESTS.labels(_METHODS.of(scope["method"]), status).inc()


def _known(error: Exception) -> LowtideError | None:
    """The expected exception behind a failure of a handler, or of a
    begun body; None: unexpected.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # Starlette wraps what is raised once an answer has begun
    return as_lowtide_error(error)


def _declared(scope: Scope) -> int:
    """Content-Length of the request. uvicorn reads and drops what is left of a refused body, so
    that the client sees the answer instead of a reset; a huge one is not worth that.
    """
    return next((int(v) for n, v in scope["headers"] if n == b"content-length"), 0)


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
