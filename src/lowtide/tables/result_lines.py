"""One line of a batch's output or error file, as the few facts that people want of it. Pure.

`answers` makes columns of them, `lowtide.Client` gives them out. Needs no Arrow.
"""

import json
from typing import Any, Final

import msgspec

from lowtide.tables.json_text import json_text


class LineResult(msgspec.Struct, frozen=True):
    """What became of one request. `text`: what the model wrote, or an embedding as JSON."""

    custom_id: str
    text: str | None = None
    finish_reason: str | None = None
    tokens: int | None = None
    error: str | None = None


class _Message(msgspec.Struct):
    content: Any = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message = msgspec.field(default_factory=_Message)
    finish_reason: str | None = None


class _Vector(msgspec.Struct):
    embedding: msgspec.Raw = msgspec.Raw(b"null")


class _Usage(msgspec.Struct):
    total_tokens: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Body(msgspec.Struct):
    choices: list[_Choice] = []
    data: list[_Vector] = []
    usage: _Usage | None = None
    error: Any = None


class _Response(msgspec.Struct):
    status_code: int = 0
    body: _Body | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: Any = None


_line: Final = msgspec.json.Decoder(_Line, strict=False)


def read_result(raw: bytes) -> LineResult:
    """What a line says. Raises ValueError for what no server writes."""
    line = _decoded(raw)
    body = line.response.body if line.response is not None else None
    error = line.error or (body.error if body is not None else None)
    if error is not None or body is None:
        status = line.response.status_code if line.response is not None else 0
        return LineResult(line.custom_id, error=_error_text(error, status))
    usage = body.usage
    tokens = None
    if usage is not None:
        tokens = usage.total_tokens or usage.prompt_tokens + usage.completion_tokens
    if body.data:
        return LineResult(line.custom_id, bytes(body.data[0].embedding).decode(), None, tokens)
    choice = body.choices[0] if body.choices else _Choice()
    content = choice.message.content
    if content is None:
        why = choice.message.refusal or "The answer has no text."
        return LineResult(line.custom_id, None, choice.finish_reason, tokens, why)
    text = content if isinstance(content, str) else json_text(content)
    return LineResult(line.custom_id, text, choice.finish_reason, tokens)


def _decoded(raw: bytes) -> _Line:
    try:
        return _line.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # An engine that stops inside an emoji sends half of it, which no UTF-8 can hold.
        whole = json.dumps(json.loads(raw), ensure_ascii=False)
        return _line.decode(whole.encode(errors="replace"))


def _error_text(error: Any, status: int) -> str:
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        return ": ".join(str(part) for part in (code, message) if part) or json_text(error)
    return str(error) if error else f"HTTP {status}"
