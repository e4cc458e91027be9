"""What a person or a script reads: lines, notes and JSON, each on its stream.

Standard output carries results only: a table or text for people, one JSON value for `--json`.
Notes, warnings and progress go to standard error. Off a terminal nothing is wrapped or cut. Tables
are in table.py, and numbers with their units in units.py.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn

from rich.console import Console
from rich.text import Text


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Lets `main` decide: rich would exit with 1, which here means that lines failed."""
        raise BrokenPipeError


OUT = _Console(highlight=False)
ERR = _Console(stderr=True, highlight=False)
NARROW_COLUMNS: Final = 110


_words_to = OUT


def is_narrow(columns: int = NARROW_COLUMNS) -> bool:
    """Returns whether standard output is a terminal that has no room for long tables, of so many
    columns."""
    return OUT.is_terminal and OUT.width < columns


@contextmanager
def words_on_stderr(*, when: bool) -> Iterator[None]:
    """Standard output belongs to results while this lasts; `write` goes to standard error."""
    global _words_to
    before = _words_to
    _words_to = ERR if when else before
    try:
        yield
    finally:
        _words_to = before


def end_line() -> None:
    """Ends the line that the cursor is on, where standard error is a terminal."""
    if ERR.is_terminal:
        ERR.line()


_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_IN_A_CELL: Final = re.compile("[\t\n]")
_SHORT: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\x1b": "\\x1b"}


def printable(text: str) -> str:
    """`text` with what would steer a terminal written out: escape codes, other control characters,
    marks that turn the direction of writing; line ends and tabs stay.

    Names, messages of engines and servers, and lines of files come from others.
    """
    return _UNPRINTABLE.sub(_written_out, text)


def _written_out(matched: re.Match[str]) -> str:
    char = matched[0]
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def cell(text: str) -> str:
    """A table's cell stays on its line and in its column."""
    return _IN_A_CELL.sub(_written_out, printable(text))


def write(text: str, *, hanging: int | None = None) -> None:
    """Prints lines of the result for people. `text` may hold rich markup; escape what comes from
    outside.

    On a terminal long lines break between words, and go on `hanging` columns from the left: by
    default two more than the line itself begins with. Elsewhere nothing is wrapped.
    """
    _print(_words_to, text, hanging)


def info(text: str, *, hanging: int | None = None) -> None:
    """Prints lines beside the result, as `write` does.

    Lost when standard error is full or gone: a note is never worth failing for.
    """
    with suppress(OSError):
        _print(ERR, text, hanging)


def _print(target: Console, text: str, hanging: int | None) -> None:
    if not target.is_terminal:
        target.print(printable(text), soft_wrap=True)
        return
    for line in printable(text).split("\n"):
        styled = Text.from_markup(line)
        indent = len(styled.plain) - len(styled.plain.lstrip(" "))
        column = indent + 2 if hanging is None else hanging
        if styled.cell_len <= target.width or column > target.width // 2:
            target.print(styled, soft_wrap=True)
            continue
        # The first line may begin left of the others; it is wrapped with them, label and all.
        label, rest = styled[:column], styled[column:]
        if hanging is None:
            label, rest = styled[:indent], styled[indent:]
        rows = rest.wrap(target, target.width - column)
        for place, row in enumerate(rows):
            row.rstrip()
            target.print(label if place == 0 else " " * column, end="", soft_wrap=True)
            target.print(row, soft_wrap=True)


def emit_json(value: Any) -> None:
    """One JSON value on standard output: indented on a terminal, one line elsewhere.

    Escaped to ASCII, so that no locale can refuse it.
    """
    sys.stdout.write(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()


def emit_json_line(value: Any) -> None:
    """One JSON value on one line, for commands that print several."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def is_live() -> bool:
    """Whether moving things may be drawn: standard error is a terminal that can move its cursor."""
    return ERR.is_terminal and not ERR.is_dumb_terminal


def close_stdout() -> None:
    """Sends what is left of standard output nowhere: its reader is gone, and exit stays quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
