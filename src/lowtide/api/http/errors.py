"""One table from error code to HTTP status, and one envelope for everything that is not a success.

Every non-2xx answer is `{"error": {"message", "type", "param", "code"}}` as application/json:
together 1.x dies of an AssertionError on any other shape (protocol.md section 2.7), and the others
lose the message. What cannot be shaped: the plain 400 that uvicorn itself sends for bytes that are
no HTTP.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from lowtide import limits
from lowtide.api.http.json_body import json_response
from lowtide.api.http.lazy_routes import LazyRoutes
from lowtide.api.objects.errors import ErrorBody, ErrorEnvelope
from lowtide.core.errors import ErrorCode, LowtideError
from lowtide.ports.blobs import BlobError, BlobNotFound, BlobsFull
from lowtide.ports.store import StoreError, StoreFull, StoreValueError

Handler = Callable[[Request, Exception], Awaitable[Response]]

STATUS_OF: Final[Mapping[ErrorCode, int]] = MappingProxyType(
    {
        "invalid_request": 400,
        "missing_required_parameter": 400,
        "invalid_value": 400,
        "unknown_parameter": 400,
        "object_above_max_properties": 400,
        "property_name_above_max_length": 400,
        "string_above_max_length": 400,
        "invalid_purpose": 400,
        "file_not_ready": 400,
        "upload_interrupted": 400,
        "upload_busy": 409,
        "batch_not_ended": 409,
        "batch_ended": 409,
        "batch_failed": 409,
        "retry_unfinished": 409,
        "nothing_to_retry": 409,
        "input_gone": 409,
        "upload_closed": 400,
        "missing_api_key": 401,
        "invalid_api_key": 401,
        # 402, not 429: every SDK repeats a 429 by itself, and no wait within its patience lifts a
        # monthly cap.
        "spend_cap_exceeded": 402,
        "insufficient_scope": 403,
        "host_not_allowed": 403,
        "origin_not_allowed": 403,
        "upload_invalid": 403,
        "file_not_found": 404,
        "batch_not_found": 404,
        "upload_not_found": 404,
        "response_not_found": 404,
        "model_not_found": 404,
        "organization_not_found": 404,
        "project_not_found": 404,
        "key_not_found": 404,
        "webhook_not_found": 404,
        "delivery_not_found": 404,
        "not_found": 404,
        "method_not_allowed": 405,
        "request_timeout": 408,
        "idempotency_key_reused": 409,
        "file_expired": 410,
        "file_lost": 410,
        "results_gone": 410,
        "upload_expired": 410,
        "offset_expired": 410,
        "file_too_large": 413,
        "request_too_large": 413,
        # 413, not 403: what is refused is this much content, by a caller who may upload; a smaller
        # file, or this one after a deletion, is taken. No SDK repeats either by itself.
        "storage_limit_exceeded": 413,
        "range_not_satisfiable": 416,
        # 422: a 409 or 503 would be repeated; what helps is a longer window.
        "window_infeasible": 422,
        "webhook_unreachable": 422,  # a 5xx would be repeated, and the receiver called again
        "rate_limit_exceeded": 429,
        "resource_unavailable": 429,  # as OpenAI's flex tier answers, unbilled
        "internal_error": 500,
        "engine_error": 502,
        "model_unavailable": 503,
        "engine_timeout": 504,
        "upload_completing": 503,
        "storage_unavailable": 503,
        "server_stopping": 503,
        "server_busy": 503,
        # 507, not 503: a full disk outlives the two to five retries of every SDK, each of which
        # would send the whole file again. `x-should-retry: false` stops them.
        "storage_full": 507,
    }
)

_CODE_OF: Final[Mapping[int, ErrorCode]] = MappingProxyType(
    {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
)


def error_response(error: LowtideError, headers: Mapping[str, str] | None = None) -> Response:
    """The envelope for a refusal, with the retry advice that the SDKs read."""
    if error.retry_after_s is not None:
        headers = {"retry-after": str(error.retry_after_s), **(headers or {})}
    return envelope(STATUS_OF[error.code], error.message, error.code, error.param, headers)


def envelope(
    status: int,
    message: str,
    code: str | None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The error body of protocol.md section 3.5."""
    body = ErrorBody(message=message, type=_type_of(status), param=param, code=code)
    return json_response(ErrorEnvelope(body), status, {**_advice(status), **(headers or {})})


def _type_of(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _advice(status: int) -> dict[str, str]:
    """The header that tells an SDK whether to repeat: each repeats 409 and 5xx by itself."""
    if status == 401:
        return {"www-authenticate": "Bearer"}
    if status in (409, 507):
        return {"x-should-retry": "false"}
    if status == 503:
        return {"retry-after": str(limits.UNAVAILABLE_RETRY_AFTER_S)}
    return {}


def as_lowtide_error(error: Exception) -> LowtideError | None:
    """What a port's failure means to a client; None for what is no known failure."""
    match error:
        case LowtideError():
            return error
        case ClientDisconnect():  # nobody reads this answer; it keeps a lost client out of the log
            return LowtideError("upload_interrupted", "The client left before its body ended.")
        case StoreFull() | BlobsFull():
            return LowtideError(
                "storage_full",
                "The server's storage is full. Nothing was kept; free space (delete files, or"
                " enlarge the disk of server.data_dir), then send this again.",
            )
        case BlobNotFound():
            return LowtideError(
                "file_not_found", "The bytes of this file are gone from the object store."
            )
        case StoreValueError():
            return LowtideError(
                "invalid_request", "A value of this call has a character that cannot be stored."
            )
        case StoreError() | BlobError():
            return LowtideError(
                "storage_unavailable",
                "The server's storage cannot be reached right now; try again in a few seconds.",
            )
        case _:
            return None


def exception_handlers() -> dict[Any, Handler]:
    """Answers every expected exception in the envelope; the unexpected ones are request_id's."""
    kinds = (LowtideError, StoreError, BlobError, ClientDisconnect)
    return {**dict.fromkeys(kinds, _on_refusal), HTTPException: _on_http}


async def _on_refusal(_: Request, error: Exception) -> Response:
    known = as_lowtide_error(error)
    assert known is not None, "registered for port and domain errors only"
    return error_response(known)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    message, headers = str(error.detail), error.headers
    if status == 404:
        message = f"Unknown path: {request.method} {request.url.path}."
    elif status == 405:
        allowed = ", ".join(sorted(_methods(request)))
        message = f"{request.method} is not allowed on {request.url.path}: use {allowed}."
        headers = {"allow": allowed}
    return envelope(status, message, _CODE_OF.get(status), headers=headers)


def _methods(request: Request) -> set[str]:
    """What the path allows: Starlette's own Allow names the methods of its first route alone."""
    methods: set[str] = set()
    for route in _routes(request.app.routes):
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return methods


def _routes(routes: Iterable[BaseRoute]) -> Iterator[Route]:
    """Each route, those of groups among them."""
    for route in routes:
        if isinstance(route, LazyRoutes):
            yield from _routes(route.routes)
        elif isinstance(route, Route):
            yield route
