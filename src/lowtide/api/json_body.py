"""JSON in and out: bodies bounded before they are parsed, answers written by msgspec."""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.core.errors import LowtideError

Body = TypeVar("Body", bound=msgspec.Struct)

_FIELD_AT_FAULT: Final = re.compile(r" - at `\$\.(\w+)")


async def read_bounded(request: Request, bytes_max: int) -> bytes:
    """The whole body.

    Raises LowtideError `request_too_large` as soon as it is known to be larger.
    """
    if declared_length(request) > bytes_max:
        raise _too_large(bytes_max)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    return bytes(body)


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
    return value


def as_struct(body: dict[str, Any], kind: type[Body]) -> Body:
    """The fields of `body` as a struct. Raises LowtideError naming the field of the wrong type."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        field = _FIELD_AT_FAULT.search(str(error))
        param = field[1] if field else None
        reason = str(error).partition(" - at ")[0]
        message = f"{param}: {reason}." if param else f"{reason}."
        raise LowtideError("invalid_request", message, param) from None


def missing(param: str) -> LowtideError:
    """The refusal of a body without that field."""
    return LowtideError(
        "missing_required_parameter", f"Missing required parameter: '{param}'.", param
    )


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
