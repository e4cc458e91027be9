"""What the OpenAPI document says about refusals: the envelope, at every status a route may answer.

The routes build their answers themselves (`json_body`), so the document is told here what they
are; a test holds answers against these models.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from lowtide.api.http.errors import STATUS_OF
from lowtide.core.errors import ErrorCode


class ErrorBody(BaseModel):
    """The error of protocol.md section 3.5."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


_EVERYWHERE: tuple[ErrorCode, ...] = (
    "missing_api_key",
    "invalid_api_key",
    "insufficient_scope",
    "rate_limit_exceeded",
    "storage_unavailable",
    "request_timeout",
    "server_busy",
)
_OPEN_MODE: tuple[ErrorCode, ...] = ("host_not_allowed", "origin_not_allowed")


UPLOAD_BEGINS: Final[tuple[ErrorCode, ...]] = (
    "invalid_request",
    "missing_required_parameter",
    "invalid_purpose",
    "file_too_large",
    "request_too_large",
    "storage_limit_exceeded",
    "storage_full",
)
"""Of an upload in parts, by either client's way: its beginning."""

UPLOAD_COMPLETES: Final[tuple[ErrorCode, ...]] = (
    "invalid_request",
    "missing_required_parameter",
    "upload_closed",
    "upload_not_found",
    "file_not_found",
    "file_lost",
    "upload_expired",
    "request_too_large",
    "upload_completing",
    "server_stopping",
    "storage_full",
)

_BOUNDS: Mapping[int, str] = {414: "The address is too long", 431: "The headers are too large"}


def refusals(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: these codes and those that any call may end in, by status."""
    return public_refusals(*codes, *_EVERYWHERE)


def public_refusals(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """The same for a route that asks for no key and needs no storage."""
    by_status: dict[int, list[str]] = {}
    for code in (*codes, *_OPEN_MODE, "not_found"):  # an address with a NUL is nobody's
        by_status.setdefault(STATUS_OF[code], []).append(f"`{code}`")
    descriptions = {status: ", ".join(dict.fromkeys(names)) for status, names in by_status.items()}
    return {
        status: {"model": ErrorEnvelope, "description": description}
        for status, description in sorted({**_BOUNDS, **descriptions}.items())
    }


def answers(model: type[BaseModel], *codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route that answers 200 with `model`, or refuses with these codes."""
    return {200: {"model": model}, **refusals(*codes)}


def json_body(schema: Mapping[str, Any]) -> dict[str, Any]:
    """For `openapi_extra=` of a route that reads its body itself, and bounded."""
    content = {"application/json": {"schema": dict(schema)}}
    return {"requestBody": {"required": True, "content": content}}
