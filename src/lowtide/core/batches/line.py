"""One input line on its way to an engine, and one output line on its way to the submitter.

The dispatcher reads a planned line here and asks for the body to send; it renders what came back
into the shapes of the two dialects (protocol.md sections 2.7 and 3.4). Invariants: a body that need
not change is sent byte for byte, and an output line is one line of ASCII that parses as JSON.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from lowtide.core.ascii_json import one_line, quote
from lowtide.core.usage import Usage

ENDPOINTS: Final = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"}
)

Dialect = Literal["openai", "together"]
UnexecutedCode = Literal["batch_expired", "batch_cancelled", "input_lost"]

UNEXECUTED_MESSAGES: Final[Mapping[UnexecutedCode, str]] = {
    # verbatim from production, protocol.md section 3.4
    "batch_expired": ("This request could not be executed before the completion window expired."),
    "batch_cancelled": "This request was not executed because its batch was cancelled.",
    "input_lost": "This request was not executed because its batch lost the data it needed.",
}


class LineFormatError(ValueError):
    """A planned line is not what validation saw: the file has changed since."""


class RequestLine(msgspec.Struct, frozen=True, gc=False):
    """What dispatch needs of a line; `body` is the raw JSON object as the submitter wrote it."""

    custom_id: str
    body: bytes


class _Envelope(msgspec.Struct, gc=False):
    custom_id: str
    body: msgspec.Raw


class _BodyAlone(msgspec.Struct, gc=False):
    body: msgspec.Raw


_envelope = msgspec.json.Decoder(_Envelope)
_body_alone = msgspec.json.Decoder(_BodyAlone)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])

_NOTHING: Final[Mapping[str, Any]] = {}
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_request(line: bytes) -> RequestLine:
    """Reads a line that passed validation; `engine_body` reads its body. Raises LineFormatError
    when it is no such line any more.
    """
    try:
        envelope = _envelope.decode(line)
        return RequestLine(envelope.custom_id, bytes(envelope.body))
    except _UNREADABLE as error:
        raise LineFormatError(f"not a request line: {error}") from error


def body_of(line: bytes | memoryview) -> bytes:
    """The body of a line that is known to have one, as dispatch will read it."""
    return bytes(_body_alone.decode(line).body)


def engine_body(
    body: bytes,
    *,
    model: str | None,
    drop_fields: frozenset[str],
    set_fields: Mapping[str, Any],
    replaced: Mapping[str, Any] = _NOTHING,
    salt: Callable[[bytes], str] | None = None,
) -> bytes:
    """The body to send: with that `model` (None keeps its own), fields dropped, then fields set.
    Those of `replaced` get its value where the body has them. `salt` makes its `cache_salt` of the
    one that it has, as JSON, empty for none.

    Values that stay are copied byte for byte, so large integers and long floats survive. Raises
    LineFormatError when the body is no JSON object.
    """
    if salt is None and not set_fields and _is_fit(body, model, drop_fields, tuple(replaced)):
        return body
    try:
        fields = _fields.decode(body)
    except _UNREADABLE as error:
        raise LineFormatError(f"not a request body: {error}") from error
    values = {name: bytes(raw) for name, raw in fields.items() if name not in drop_fields}
    if model is not None:
        values["model"] = quote(model)
    if salt is not None:
        values["cache_salt"] = quote(salt(values.get("cache_salt", b"")))
    present = {name: value for name, value in replaced.items() if name in values}
    for name, value in {**present, **set_fields}.items():
        values[name] = msgspec.json.encode(value)
    members = b",".join(b"%b:%b" % (quote(name), value) for name, value in values.items())
    return b"{%b}" % members


def _is_fit(
    body: bytes, model: str | None, dropped: frozenset[str], replaced: tuple[str, ...]
) -> bool:
    """Whether the JSON object is for that model, and has no field with one of the names, however it
    is spelled. Raises LineFormatError when the body is no JSON object.

    This runs for every request, so one decode into a struct of these fields tells both.
    """
    decoder, fit = _fitting(model, dropped, replaced)
    try:
        return decoder.decode(body) == fit
    except _UNREADABLE as error:
        raise LineFormatError(f"not a request body: {error}") from error


@lru_cache(maxsize=256)
def _fitting(
    model: str | None, dropped: frozenset[str], replaced: tuple[str, ...]
) -> tuple[msgspec.json.Decoder[msgspec.Struct], msgspec.Struct]:
    """Reads the fields with these names, and what it reads of a body that may go as it is."""
    names = sorted(dropped.union(replaced))
    attributes = {f"field_{place}": name for place, name in enumerate(names)}
    fields: list[tuple[str, Any, Any]] = [
        (attribute, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for attribute in attributes
    ]
    wanted = {} if model is None or "model" in names else {"model": model}
    fields += [(name, str, "") for name in wanted]
    made = msgspec.defstruct("_Found", fields, rename=attributes, gc=False)
    return msgspec.json.Decoder(made), made(**wanted)


def render_success(
    dialect: Dialect,
    request_id: str,
    custom_id: str,
    status: int,
    body: bytes,
    charged: Usage | None = None,
) -> bytes:
    """The output line of a request that was answered; `request_id` is the whole public id.
    `charged`: what it is charged as, where its engine reported no usable usage.
    """
    ident = quote(request_id)
    if dialect == "together":
        line = b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,"body":%b}}\n' % (
            ident,
            quote(custom_id),
            status,
            one_line(body),
        )
    else:
        line = _openai_response(ident, custom_id, status, one_line(body))
    return line if charged is None else b"%b,%b}\n" % (line[:-2], _charged_member(charged))


def _charged_member(charged: Usage) -> bytes:
    """Says on the line that its tokens are not the engine's own count."""
    source = b"estimate" if charged.input_tokens else b"free"
    return b'"charged_usage":{"source":"%b","input_tokens":%d,"output_tokens":%d}' % (
        source,
        charged.input_tokens,
        charged.output_tokens,
    )


def render_rejected(
    dialect: Dialect,
    request_id: str,
    custom_id: str,
    *,
    status: int | None,
    body: bytes | None,
    code: str,
    message: str,
) -> bytes:
    """The error line of a request that an engine refused, or that got no usable answer.

    `status` and `body` are the engine's, where it gave an HTTP error; a status below 400 (an answer
    that was no answer) counts as none, because readers take it for success.
    """
    failure = status if status is not None and status >= 400 else None
    ident = quote(request_id)
    if dialect == "together":
        response = b""
        if failure is not None:
            reply = b"" if body is None else b',"body":%b' % one_line(body)
            response = b',"response":{"status_code":%d%b}' % (failure, reply)
        return _together_error(ident, custom_id, code, message, response)
    if failure is None:
        return _openai_error(ident, custom_id, code, message)
    reply = _error_body(failure, code, message) if body is None else one_line(body)
    return _openai_response(ident, custom_id, failure, reply)


def render_unexecuted(
    dialect: Dialect, request_id: str, custom_id: str, code: UnexecutedCode
) -> bytes:
    """The error line of a request that never ran: its batch expired, was cancelled, or lost its
    input.
    """
    ident = quote(request_id)
    if dialect == "together":
        return _together_error(ident, custom_id, code, UNEXECUTED_MESSAGES[code], b"")
    return _openai_error(ident, custom_id, code, UNEXECUTED_MESSAGES[code])


def output_line_id(batch_id: str, line: int) -> str:
    """`id` of an output line: made of batch and line, so a line run twice has one name."""
    return f"batch_req_{batch_id.rpartition('_')[2]}-{line}"


def _openai_response(ident: bytes, custom_id: str, status: int, reply: bytes) -> bytes:
    return (
        b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,"request_id":%b,"body":%b},'
        b'"error":null}\n' % (ident, quote(custom_id), status, ident, reply)
    )


def _openai_error(ident: bytes, custom_id: str, code: str, message: str) -> bytes:
    return b'{"id":%b,"custom_id":%b,"response":null,"error":{"code":%b,"message":%b}}\n' % (
        ident,
        quote(custom_id),
        quote(code),
        quote(message),
    )


def _together_error(
    ident: bytes, custom_id: str, code: str, message: str, response: bytes
) -> bytes:
    """`response` is empty or a ready member: an explicit null there breaks langasync."""
    return b'{"id":%b,"custom_id":%b,"error":{"message":%b,"code":%b}%b}\n' % (
        ident,
        quote(custom_id),
        quote(message),
        quote(code),
        response,
    )


def _error_body(status: int, code: str, message: str) -> bytes:
    """The usual error envelope, for an engine that refused without JSON."""
    kind = b"server_error" if status >= 500 else b"invalid_request_error"
    return b'{"error":{"message":%b,"type":"%b","param":null,"code":%b}}' % (
        quote(message),
        kind,
        quote(code),
    )
