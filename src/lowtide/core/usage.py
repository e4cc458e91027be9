"""Token usage of one answer or many, read from the shapes that engines report it in."""

import msgspec

from lowtide import limits


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens. `cached_tokens` is part of `input_tokens`, `reasoning_tokens` of `output_tokens`.

    `unreported`: of the answers summed here, those whose engine reported no usable usage. Their
    tokens are an estimate, or none where the settings say that they are free.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    unreported: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.unreported + other.unreported,
        )


NO_USAGE = Usage()
UNREPORTED = Usage(unreported=1)
"""One answer without usable usage, charged nothing."""


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct, gc=False):
    """`usage` of an answer as engines write it."""

    # Chat Completions, Completions and Embeddings
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    # Responses
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Answer(msgspec.Struct):
    usage: WireUsage | None = None


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding unchecked bytes may raise; deep nesting ends in RecursionError."""

_answer = msgspec.json.Decoder(_Answer)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def usage_of(body: bytes) -> Usage | None:
    """Reads `usage` from an answer; None where the engine reported none, or in an unknown shape.

    Raises one of UNREADABLE when the body is not a JSON object.
    """
    try:
        wire = _answer.decode(body).usage
    except msgspec.ValidationError:
        _object.decode(body)  # an object all the same? then only its usage is odd
        return None
    return None if wire is None else usage_from(wire)


def usage_from(wire: WireUsage) -> Usage:
    """The usage of an answer, whichever shape it had. Every answer passes through here."""
    most = limits.USAGE_TOKENS_MAX
    tokens_in, tokens_out = wire.prompt_tokens, wire.completion_tokens
    plain = wire.prompt_tokens_details is None and wire.completion_tokens_details is None
    if plain and tokens_in and tokens_out and 0 < tokens_in <= most and 0 < tokens_out <= most:
        return Usage(tokens_in, 0, tokens_out)
    details = wire.prompt_tokens_details or wire.input_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    output_details = wire.completion_tokens_details or wire.output_tokens_details
    reasoning = (output_details.reasoning_tokens or 0) if output_details is not None else 0
    tokens_in = wire.prompt_tokens or wire.input_tokens or 0
    tokens_out = wire.completion_tokens or wire.output_tokens or 0
    if not (0 <= cached <= tokens_in <= most and 0 <= reasoning <= tokens_out <= most):
        tokens_in, tokens_out = _sane(tokens_in), _sane(tokens_out)
        cached, reasoning = min(tokens_in, _sane(cached)), min(tokens_out, _sane(reasoning))
    return Usage(
        input_tokens=tokens_in,
        cached_tokens=cached,
        output_tokens=tokens_out,
        reasoning_tokens=reasoning,
    )


def _sane(tokens: int) -> int:
    """A count within bounds: what a broken engine reports must neither make a charge
    negative nor overflow a sum.
    """
    return min(max(0, tokens), limits.USAGE_TOKENS_MAX)
