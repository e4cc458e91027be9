"""What the OpenAPI document says about answers: objects by their structs, refusals by their codes.

Called where routes are declared. An answer names the types that it holds; their schemas are made
with the document, not at each start of a server. Guards: a refusal is the envelope, at every
status that a route may answer.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lowtide.api.http.errors import STATUS_OF
from lowtide.api.objects.errors import ErrorEnvelope
from lowtide.api.openapi.schemas import Kinds, Schema
from lowtide.core.errors import ErrorCode

JSON: Final = "application/json"
TEXT: Final[Schema] = {"type": "string"}


class DescribedAnswer(msgspec.Struct, frozen=True):
    """What the document says of one answer: its meaning, and what it holds by media type."""

    text: str = "Success"
    content: Mapping[str, Kinds | Schema] = {}


Responses = Mapping[int | str, DescribedAnswer]
"""What the document says of the answers of one route, by status."""

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


JSON_WRITES: Final[tuple[ErrorCode, ...]] = (
    "invalid_request",
    "request_too_large",
    "storage_full",
)
"""The refusals that can meet any call with a body in JSON that changes something."""

BATCH_WRITES: Final[tuple[ErrorCode, ...]] = (
    *JSON_WRITES,
    "invalid_value",
    "object_above_max_properties",
    "property_name_above_max_length",
    "string_above_max_length",
)
"""The same, where the body has metadata and other fields of a batch."""

UPLOAD_BEGINS: Final[tuple[ErrorCode, ...]] = (
    *JSON_WRITES,
    "missing_required_parameter",
    "invalid_purpose",
    "file_too_large",
    "idempotency_key_reused",
    "storage_limit_exceeded",
)
"""The refusals that can meet the beginning of an upload in parts, by either client's way."""

UPLOAD_COMPLETES: Final[tuple[ErrorCode, ...]] = (
    *JSON_WRITES,
    "missing_required_parameter",
    "upload_closed",
    "upload_not_found",
    "file_not_found",
    "file_lost",
    "upload_expired",
    "upload_completing",
    "server_stopping",
)

_BOUNDS: Mapping[int, str] = {414: "The address is too long", 431: "The headers are too large"}


def refusals(*codes: ErrorCode) -> dict[int | str, DescribedAnswer]:
    """The answers for these codes and for those that any call may end in, by status."""
    return public_refusals(*codes, *_EVERYWHERE)


def public_refusals(*codes: ErrorCode) -> dict[int | str, DescribedAnswer]:
    """The same for a route that asks for no key and needs no storage."""
    by_status: dict[int, list[str]] = {}
    for code in (*codes, *_OPEN_MODE, "not_found"):  # an address with a NUL is nobody's
        by_status.setdefault(STATUS_OF[code], []).append(f"`{code}`")
    descriptions = {status: ", ".join(dict.fromkeys(names)) for status, names in by_status.items()}
    return {
        status: answer(ErrorEnvelope, description)
        for status, description in sorted({**_BOUNDS, **descriptions}.items())
    }


def answer(kinds: Kinds, text: str = "Success") -> DescribedAnswer:
    """An answer in JSON of one of these kinds."""
    return DescribedAnswer(text, {JSON: kinds})


def answers(kinds: Kinds, *codes: ErrorCode) -> dict[int | str, DescribedAnswer]:
    """The answers of a route that returns 200 with one of these kinds or
    refuses with these codes.
    """
    return {200: answer(kinds), **refusals(*codes)}


def json_body(schema: Schema) -> dict[str, Any]:
    """The body of a route that reads its body itself, with a bound."""
    return body({JSON: {"schema": dict(schema)}})


def body(content: Mapping[str, Any]) -> dict[str, Any]:
    """The request's body, by media type."""
    return {"required": True, "content": content}


OCTETS: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
"""A body of bare bytes, for `body`."""
