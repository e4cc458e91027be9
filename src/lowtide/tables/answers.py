"""Answers of a batch, line by line, as the few facts that become columns.

A part's output and error files are in the order of its input; `merge_answers` walks through both
along with the part's index and writes one answer for each row. Invariant: every row of the part
gets exactly one answer, be it an error.
"""

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

from lowtide.limits import TABLE_ERROR_CHARS_MAX
from lowtide.tables.json_text import json_bytes
from lowtide.tables.requests import RowIndexEntry
from lowtide.tables.result_lines import LineResult, read_result

_ENDED_WITHOUT: Final = "The batch ended without an answer to this row."


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What became of one row. `text`: what the model wrote, or an embedding as JSON."""

    number: int
    text: str | None = None
    finish_reason: str | None = None
    tokens: int | None = None
    error: str | None = None


_answer: Final = msgspec.json.Decoder(Answer)


def merge_answers(
    index: Iterable[RowIndexEntry], output: Iterable[bytes], errors: Iterable[bytes]
) -> Iterator[Answer]:
    """One answer for each entry. `output` and `errors`: the lines of the batch's two files."""
    succeeded, failed = map(read_result, output), map(read_result, errors)
    good, bad = next(succeeded, None), next(failed, None)
    for entry in index:
        if entry.custom_id is None:
            yield Answer(entry.number, error=_short(entry.fault or _ENDED_WITHOUT))
        elif good is not None and good.custom_id == entry.custom_id:
            yield _of(entry.number, good)
            good = next(succeeded, None)
        elif bad is not None and bad.custom_id == entry.custom_id:
            yield _of(entry.number, bad)
            bad = next(failed, None)
        else:
            yield Answer(entry.number, error=_ENDED_WITHOUT)


def _of(number: int, result: LineResult) -> Answer:
    error = None if result.error is None else _short(result.error)
    return Answer(number, result.text, result.finish_reason, result.tokens, error)


def _short(text: str) -> str:
    if len(text) <= TABLE_ERROR_CHARS_MAX:
        return text
    return text[: TABLE_ERROR_CHARS_MAX - 3] + "..."


def write_answers(answers: Iterable[Answer], stream: BinaryIO) -> tuple[int, int]:
    """Writes a line for each answer. Returns how many there are, and how many of
    them are errors.
    """
    count = failed = 0
    for answer in answers:
        stream.write(json_bytes(answer) + b"\n")
        count += 1
        failed += answer.error is not None
    return count, failed


def read_answers(stream: BinaryIO) -> Iterator[Answer]:
    """Yields what `write_answers` wrote."""
    return map(_answer.decode, stream)
