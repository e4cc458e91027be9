"""What an answer is charged as: the usage that its engine reported, if that makes sense.

The dispatcher asks for every success, before its outcome is committed. An engine may report no
usage, or one that cannot be: no tokens for a prompt, more than the bytes of the request could be,
more than the request allows. Such an answer is `unreported`; it is charged by an estimate, or
nothing, as the operator has set, and its line says so. Pure. Invariant: a charge is bounded by the
bytes of the request and by what it allows, whatever an engine reports.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.bodies.output_bound import FIELDS, answers, output_bound
from lowtide.core.live.live import estimate_tokens
from lowtide.core.tokens.features import FEATURES, features_of_line
from lowtide.core.usage import UNREADABLE, UNREPORTED, Usage

MissingUsage = Literal["estimate", "free"]
"""What becomes of an answer without usable usage: charged by an estimate, or not at all."""

_EMBEDDINGS: Final = "/v1/embeddings"
_MEDIA: Final = FEATURES.index("media")
_NULL: Final = msgspec.Raw(b"null")


class UsageMeter:
    """One for each worker. `missing` is asked at each answer that lacks its usage."""

    def __init__(self, missing: Callable[[], MissingUsage] = lambda: "estimate") -> None:
        self._missing = missing

    def charged(
        self, endpoint: str, line: bytes, prompt_tokens: int, body: bytes, usage: Usage
    ) -> Usage:
        """What the answer `body` to an input line is charged as. `prompt_tokens`: the line's, as
        planned. The usage that was reported comes back as the same object where it makes sense.
        """
        if (
            0 < usage.input_tokens <= limits.TOKENS_PER_BYTE_MAX * len(line)
            and not usage.unreported
            and 0 < usage.output_tokens <= limits.TOKENS_PER_BYTE_MAX * len(body)
        ):
            return usage
        if is_sensible(usage, endpoint, line, body):
            return usage
        if self._missing() == "free":
            return UNREPORTED
        return estimated(endpoint, line, prompt_tokens, body)


def is_sensible(usage: Usage, endpoint: str, line: bytes, body: bytes) -> bool:
    """Whether a model can have used so many tokens for this request and this answer."""
    if usage.unreported or not usage.input_tokens:
        return False
    if usage.input_tokens > _input_tokens_max(line):
        return False
    if not usage.output_tokens:
        return endpoint == _EMBEDDINGS or not _text_bytes(body)
    spoken = limits.TOKENS_PER_BYTE_MAX * len(body)
    return usage.output_tokens <= max(spoken, _output_tokens_max(endpoint, line))


def estimated(endpoint: str, line: bytes, prompt_tokens: int, body: bytes) -> Usage:
    """What the request was planned with, and a token for four bytes of the answer, as for a live
    call; no more than the line allows.
    """
    output_tokens = 0
    if endpoint != _EMBEDDINGS:
        output_tokens = min(estimate_tokens(_text_bytes(body)), _output_tokens_max(endpoint, line))
    return Usage(input_tokens=max(1, prompt_tokens), output_tokens=output_tokens, unreported=1)


def _input_tokens_max(line: bytes) -> int:
    """The most prompt tokens that any tokenizer and template can make of the request. Images and
    token ids are looked for only where the bytes alone do not explain what was reported.
    """
    features = features_of_line(line)
    media = int(features.counts[_MEDIA]) * limits.USAGE_MEDIA_TOKENS_MAX
    text = limits.TOKENS_PER_BYTE_MAX * len(line)
    return text + limits.USAGE_TEMPLATE_TOKENS_MAX + media + features.given


_Bounds: Final = msgspec.defstruct("_Bounds", [(name, Any, None) for name in FIELDS])
_Line: Final = msgspec.defstruct("_Line", [("body", _Bounds)])
_line: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_Line)


def _output_tokens_max(endpoint: str, line: bytes) -> int:
    """The most output tokens that all answers to the request together may have."""
    try:
        body = _line.decode(line).body
    except UNREADABLE:
        return limits.USAGE_ANSWER_TOKENS_MAX
    bound = output_bound(endpoint, body)
    return answers(endpoint, body) * limits.USAGE_ANSWER_TOKENS_MAX if bound is None else bound


class _Message(msgspec.Struct):
    content: msgspec.Raw = _NULL
    reasoning_content: msgspec.Raw = _NULL
    reasoning: msgspec.Raw = _NULL
    tool_calls: msgspec.Raw = _NULL


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: msgspec.Raw = _NULL


class _Body(msgspec.Struct):
    choices: list[_Choice] = []
    output: msgspec.Raw = _NULL


_body = msgspec.json.Decoder(_Body)


def _text_bytes(body: bytes) -> int:
    """The bytes of what the model wrote, if the answer has a known shape; else of all of it."""
    try:
        answer = _body.decode(body)
    except UNREADABLE:
        return len(body)
    parts = [answer.output, *(choice.text for choice in answer.choices)]
    for choice in answer.choices:
        if (said := choice.message) is not None:
            parts += [said.content, said.reasoning_content, said.reasoning, said.tool_calls]
    return sum(max(0, len(bytes(part)) - 2) for part in parts if bytes(part) != b"null")
