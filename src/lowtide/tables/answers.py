"""Answers of a batch, line by line, as the few facts that become columns.

A part's output and error files are in the order of its input; `merge_answers` walks through both
along with the part's index and writes one answer for each row. Invariant: every row of the part
gets exactly one answer, be it an error.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import msgspec

from lowtide.limits import TABLE_ERROR_CHARS_MAX
from lowtide.tables.json_text import json_bytes, json_text
from lowtide.tables.requests import RowIndexEntry

_ENDED_WITHOUT: Final = "The batch ended without an answer to this row."


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What became of one row. `text`: what the model wrote, or an embedding as JSON."""

    number: int
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
_answer: Final = msgspec.json.Decoder(Answer)


def merge_answers(
    index: Iterable[RowIndexEntry], output: Iterable[bytes], errors: Iterable[bytes]
) -> Iterator[Answer]:
    """One answer for each entry. `output` and `errors`: the lines of the batch's two files."""
    succeeded, failed = map(_decoded, output), map(_decoded, errors)
    good, bad = next(succeeded, None), next(failed, None)
    for entry in index:
        if entry.custom_id is None:
            yield Answer(entry.number, error=_short(entry.fault or _ENDED_WITHOUT))
        elif good is not None and good.custom_id == entry.custom_id:
            yield _read(entry.number, good)
            good = next(succeeded, None)
        elif bad is not None and bad.custom_id == entry.custom_id:
            yield _read(entry.number, bad)
            bad = next(failed, None)
        else:
            yield Answer(entry.number, error=_ENDED_WITHOUT)


def _decoded(raw: bytes) -> _Line:
    try:
        return _line.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # An engine that stops inside an emoji sends half of it, which no UTF-8 can hold.
        whole = json.dumps(json.loads(raw), ensure_ascii=False)
        return _line.decode(whole.encode(errors="replace"))


def _read(number: int, line: _Line) -> Answer:
    body = line.response.body if line.response is not None else None
    error = line.error or (body.error if body is not None else None)
    if error is not None or body is None:
        status = line.response.status_code if line.response is not None else 0
        return Answer(number, error=_short(_error_text(error, status)))
    usage = body.usage
    tokens = None
    if usage is not None:
        tokens = usage.total_tokens or usage.prompt_tokens + usage.completion_tokens
    if body.data:
        return Answer(number, bytes(body.data[0].embedding).decode(), None, tokens)
    choice = body.choices[0] if body.choices else _Choice()
    content = choice.message.content
    if content is None:
        why = choice.message.refusal or "The answer has no text."
        return Answer(number, None, choice.finish_reason, tokens, _short(why))
    text = content if isinstance(content, str) else json_text(content)
    return Answer(number, text, choice.finish_reason, tokens)


def _error_text(error: Any, status: int) -> str:
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        return ": ".join(str(part) for part in (code, message) if part) or json_text(error)
    return str(error) if error else f"HTTP {status}"


def _short(text: str) -> str:
    if len(text) <= TABLE_ERROR_CHARS_MAX:
        return text
    return text[: TABLE_ERROR_CHARS_MAX - 3] + "..."


def write_answers(answers: Iterable[Answer], stream: BinaryIO) -> tuple[int, int]:
    """A line each; how many there are, and how many of them are errors."""
    count = failed = 0
    for answer in answers:
        stream.write(json_bytes(answer) + b"\n")
        count += 1
        failed += answer.error is not None
    return count, failed


def read_answers(stream: BinaryIO) -> Iterator[Answer]:
    """What `write_answers` wrote."""
    return map(_answer.decode, stream)
