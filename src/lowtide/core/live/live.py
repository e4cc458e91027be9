"""An interactive request as the HTTP API reads it, and an engine's answer as its client may see it.

Pure. The HTTP API looks only at what it needs to route and to count; the body goes on byte for byte
wherever model name and fields allow it. Every refusal of an engine reaches the client in the one
envelope that all SDKs read (protocol.md section 3.5).
"""

from typing import Final

import msgspec

from lowtide.core.ascii_json import quote
from lowtide.core.bodies.body_bounds import require_bounded
from lowtide.core.bodies.body_rules import NOT_CONTINUED
from lowtide.core.errors import LowtideError, missing_parameter
from lowtide.core.faults.outcome import Reply, error_message
from lowtide.core.usage import UNREADABLE, usage_of
from lowtide.limits import LIVE_OUTPUT_TOKENS_ASSUMED, LIVE_PREFIX_BYTES

_EMBEDDINGS: Final = "/v1/embeddings"
_RESPONSES: Final = "/v1/responses"


class LiveRequest(msgspec.Struct, frozen=True):
    """One call. `model` is what the client wrote; `prefix` the beginning of its prompt."""

    endpoint: str
    body: bytes
    model: str
    streams: bool
    prefix: bytes
    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """The most tokens that the call may take, as far as it says."""
        return self.input_tokens + self.output_tokens

    @property
    def path(self) -> str:
        """The path under an engine's base URL."""
        return self.endpoint.removeprefix("/v1")


class _Wire(msgspec.Struct):
    """Fields of unknown type are Raw: what is wrong with them is the engine's to say."""

    model: str | None = None
    stream: msgspec.Raw = msgspec.Raw(b"null")
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    max_tokens: msgspec.Raw = msgspec.Raw(b"")
    max_completion_tokens: msgspec.Raw = msgspec.Raw(b"")
    max_output_tokens: msgspec.Raw = msgspec.Raw(b"")
    n: msgspec.Raw = msgspec.Raw(b"")
    previous_response_id: msgspec.Raw = msgspec.Raw(b"null")


_wire = msgspec.json.Decoder(_Wire)


def read_live(endpoint: str, body: bytes) -> LiveRequest:
    """Raises LowtideError `invalid_request` or `missing_required_parameter`."""
    require_bounded(body)
    try:
        wire = _wire.decode(body)
    except msgspec.ValidationError as error:
        raise LowtideError("invalid_request", f"The request body: {error}.") from None
    except UNREADABLE as error:
        text = f"The request body is not valid JSON: {error}"
        raise LowtideError("invalid_request", text) from None
    if not wire.model:
        raise missing_parameter("model")
    if endpoint == _RESPONSES and bytes(wire.previous_response_id) != b"null":
        raise LowtideError("invalid_request", NOT_CONTINUED, "previous_response_id")
    prompt = bytes(wire.messages) or bytes(wire.prompt)
    if not prompt:
        prompt = bytes(wire.instructions) + bytes(wire.input)
    return LiveRequest(
        endpoint=endpoint,
        body=body,
        model=wire.model,
        streams=bytes(wire.stream) == b"true",
        prefix=prompt[:LIVE_PREFIX_BYTES],
        input_tokens=estimate_tokens(len(body)),
        output_tokens=0 if endpoint == _EMBEDDINGS else _output_tokens(wire),
    )


def estimate_tokens(text_bytes: int) -> int:
    """Four bytes a token, rounded up: a reservation that the engine's own count soon corrects."""
    return (text_bytes + 3) // 4


def _output_tokens(wire: _Wire) -> int:
    bounds = (wire.max_completion_tokens, wire.max_output_tokens, wire.max_tokens)
    each = next((count for raw in bounds if (count := _count(raw))), LIVE_OUTPUT_TOKENS_ASSUMED)
    return each * (_count(wire.n) or 1)


def _count(raw: msgspec.Raw) -> int:
    text = bytes(raw)
    return int(text) if text.isdigit() and len(text) < 10 else 0


class LiveAnswer(msgspec.Struct, frozen=True):
    """A complete answer for the client."""

    status: int
    content_type: str
    body: bytes
    retry_after_s: float | None = None


def answer_of(reply: Reply, content_type: str = "application/json") -> LiveAnswer:
    """An engine's reply as the client gets it: a success as it is, a refusal in the envelope.

    An engine that refuses Lowtide's credentials, or redirects, is the operator's problem
    and no advice to a client.
    """
    status, body = reply.status, reply.body
    if 200 <= status < 300:
        return LiveAnswer(status, content_type, body)
    if status < 400 or status in (401, 403, 407):
        message = f"The engine behind this model answered {status}; the operator has to mend that."
        return LiveAnswer(502, "application/json", _envelope(502, message, code="engine_error"))
    return LiveAnswer(status, "application/json", _in_envelope(status, body), reply.retry_after_s)


def no_answer(detail: str) -> LiveAnswer:
    """The answer to a client when an engine's 200 held no answer."""
    message = f"The engine behind this model gave no answer: {detail}."
    return LiveAnswer(502, "application/json", _envelope(502, message, code="engine_error"))


def tokens_used(request: LiveRequest, body: bytes) -> int:
    """The tokens of a complete, successful answer: what the engine reports, else an estimate."""
    try:
        usage = usage_of(body)
    except UNREADABLE:
        usage = None
    if usage is not None:
        return usage.total_tokens
    return request.input_tokens + min(request.output_tokens, estimate_tokens(len(body)))


class _Error(msgspec.Struct):
    """All four keys: one SDK fails on fewer (protocol.md section 2.7)."""

    message: str
    type: str | None
    param: str | None
    code: str | None


class _Envelope(msgspec.Struct):
    error: _Error


class _LooseError(msgspec.Struct):
    type: object = None
    param: object = None
    code: object = None  # a number in vLLM's


class _LooseEnvelope(msgspec.Struct):
    error: _LooseError


def _in_envelope(status: int, body: bytes) -> bytes:
    """The body if it is an envelope, else one with what can be read of it."""
    try:
        msgspec.json.decode(body, type=_Envelope)
    except UNREADABLE:
        pass
    else:
        return body
    try:
        refusal = msgspec.json.decode(body, type=_LooseEnvelope).error
    except UNREADABLE:
        refusal = _LooseError()
    message = error_message(body) or f"The engine behind this model answered {status}."
    return _envelope(
        status, message, _text(refusal.type), _text(refusal.param), _text(refusal.code)
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _envelope(
    status: int,
    message: str,
    kind: str | None = None,
    param: str | None = None,
    code: str | None = None,
) -> bytes:
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    values = tuple(b"null" if text is None else quote(text) for text in (param, code))
    return b'{"error":{"message":%b,"type":%b,"param":%b,"code":%b}}' % (
        quote(message),
        quote(kind),
        *values,
    )
