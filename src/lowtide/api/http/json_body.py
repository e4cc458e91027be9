"""JSON in and out: bodies bounded before they are parsed, answers written by msgspec."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from lowtide import limits
from lowtide.api.http.body_budget import hold
from lowtide.core.errors import LowtideError

Body = TypeVar("Body", bound=msgspec.Struct)

_NUL_ESCAPED: Final = b"\\u0000"
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*?)`", re.DOTALL)
_FIELD_AT_FAULT: Final = re.compile(r" - at `\$\.(\w+)")


async def read_bounded(request: Request, bytes_max: int, declared: int | None = None) -> bytes:
    """The whole body, within `JSON_BODY_S` of its first bytes; `body_budget` counts it.

    `declared`: its `declared_length`, where the caller knows it already.

    Raises LowtideError `request_too_large` as soon as it is known to be larger, `request_timeout`,
    and what `body_budget.hold` raises; ClientDisconnect.
    """
    if (declared_length(request) if declared is None else declared) > bytes_max:
        raise _too_large(bytes_max)
    message = await request.receive()
    body = _bytes_in(message, request, bytes_max, bytes_max)
    if not (is_going_on := message.get("more_body", False)):  # as with nearly all
        return body
    pieces, left = [body], bytes_max - len(body)
    try:
        async with asyncio.timeout(limits.JSON_BODY_S):
            while is_going_on:
                message = await request.receive()
                body = _bytes_in(message, request, left, bytes_max)
                is_going_on = message.get("more_body", False)
                pieces.append(body)
                left -= len(body)
    except TimeoutError:
        raise LowtideError(
            "request_timeout",
            f"The body did not arrive within {limits.JSON_BODY_S:.0f} seconds.",
        ) from None
    return b"".join(pieces)


def _bytes_in(message: Message, request: Request, left: int, bytes_max: int) -> bytes:
    """The next bytes of the body, of which there may be `left` more."""
    if message["type"] != "http.request":
        raise ClientDisconnect
    body: bytes = message.get("body", b"")
    if len(body) > left:
        raise _too_large(bytes_max)
    if body:
        hold(request.scope, len(body))
    return body


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in the body, an empty body as `{}`. Raises LowtideError `invalid_request`."""
    body = await read_bounded(request, limits.JSON_BODY_BYTES_MAX)
    if not body.strip():
        return {}
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise LowtideError("invalid_request", "The request body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LowtideError(
            "invalid_request", f"The request body is not valid JSON: {error}"
        ) from None
    if not isinstance(value, dict):
        raise LowtideError("invalid_request", "The request body must be a JSON object.")
    if _NUL_ESCAPED in body and (field := _field_with_nul(value)) is not None:
        raise _nul_in(field)
    return value


def _field_with_nul(value: dict[str, Any]) -> str | None:
    """The first field of the object in which that character stands, however deep."""
    for field, inner in value.items():
        left = [field, inner]
        while left:
            match left.pop():
                case str() as text if "\0" in text:
                    return field
                case dict() as members:
                    left += [*members, *members.values()]
                case list() as items:
                    left += items
    return None


def _nul_in(field: str) -> LowtideError:
    """The refusal of a NUL character in that field: no id has one and PostgreSQL cannot store it,
    so every database gives the same answer.
    """
    shown = field.replace("\0", "\\0")
    if field.endswith("_id"):
        return LowtideError("not_found", f"{shown}: nothing has an id with U+0000 in it.", shown)
    return LowtideError("invalid_request", f"{shown}: the character U+0000 is refused.", shown)


def as_struct(body: dict[str, Any], kind: type[Body], *, strict: bool = True) -> Body:
    """The fields of `body` as a struct; `strict`: no text passes as a number. Raises LowtideError
    naming the field of the wrong type.
    """
    try:
        return msgspec.convert(body, kind, strict=strict)
    except msgspec.ValidationError as error:
        if (unknown := _UNKNOWN_FIELD.match(str(error))) is not None:
            name = unknown[1][: limits.VALUE_CHARS_QUOTED]
            raise LowtideError("unknown_parameter", f"Unknown parameter: '{name}'.", name) from None
        field = _FIELD_AT_FAULT.search(str(error))
        param = field[1] if field else None
        reason = str(error).partition(" - at ")[0]
        message = f"{param}: {reason}." if param else f"{reason}."
        raise LowtideError("invalid_request", message, param) from None


def json_response(
    payload: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer of type application/json, which together 1.x insists on."""
    return Response(
        msgspec.json.encode(payload), status, headers=headers, media_type="application/json"
    )


def declared_length(request: Request) -> int:
    """Content-Length in bytes; 0 when it was not sent (chunked) or is no number."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _too_large(bytes_max: int) -> LowtideError:
    return LowtideError("request_too_large", f"The request body is larger than {bytes_max} bytes.")
