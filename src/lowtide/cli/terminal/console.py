"""What a person or a script sees: tables, notes and JSON, each on its stream.

Standard output carries results only: a table or text for people, one JSON value for `--json`.
Notes, warnings and progress go to standard error. Off a terminal nothing is wrapped or cut, and a
table becomes tab-separated lines, so that grep, cut and awk see whole values.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NoReturn

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from lowtide.limits import KIB


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Let `main` decide: rich would exit with 1, which here means that lines failed."""
        raise BrokenPipeError


OUT = _Console(highlight=False)
ERR = _Console(stderr=True, highlight=False)


_words_to = OUT


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


def _written_out(found: re.Match[str]) -> str:
    char = found[0]
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _cell(text: str) -> str:
    """A table's cell stays on its line and in its column."""
    return _IN_A_CELL.sub(_written_out, printable(text))


def write(text: str) -> None:
    """A line of result for people. `text` may hold rich markup; escape what comes from outside."""
    _words_to.print(printable(text), soft_wrap=True)


def info(text: str) -> None:
    """A line beside the result. `text` may hold rich markup; escape what comes from outside.

    Lost when standard error is full or gone: a note is never worth failing for.
    """
    with suppress(OSError):
        ERR.print(printable(text), soft_wrap=True)


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


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> None:
    """Rows under headings; tab-separated when standard output is no terminal.

    `numbers`: how many of the last columns hold numbers, which are read from the right and whole.
    """
    if not OUT.is_terminal:
        for row in (headings, *rows):
            sys.stdout.write("\t".join(map(_cell, row)) + "\n")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, heading in enumerate(headings):
        is_number = place >= len(headings) - numbers
        is_whole = is_number or (place == 0 and not numbers)
        justify: JustifyMethod = "right" if is_number else "left"
        table.add_column(heading, no_wrap=is_whole, overflow="fold", justify=justify)
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    OUT.print(table)


def show_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line. Values may hold markup."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    pairs = list(fields)
    if OUT.is_terminal:
        for name, value in pairs:
            grid.add_row(name, printable(value))
        OUT.print(grid)
        return
    for name, value in pairs:
        write(f"{name}: {value}")


def is_live() -> bool:
    """Whether moving things may be drawn: standard error is a terminal that can move its cursor."""
    return ERR.is_terminal and not ERR.is_dumb_terminal


def close_stdout() -> None:
    """Send what is left of standard output nowhere: its reader is gone, and exit stays quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def human_bytes(count: int) -> str:
    """`1.4 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < KIB:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= KIB
    return f"{size:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """`850 ms`, `12.3 s`, `4 min 05 s`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def human_instant(timestamp: int | None) -> str:
    """A Unix timestamp as local time, or a dash."""
    if timestamp is None:
        return "-"
    return datetime.fromtimestamp(timestamp, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def human_day(timestamp: int | None) -> str:
    """The day of a Unix timestamp in local time, or a dash."""
    return human_instant(timestamp).partition(" ")[0]


def human_dollars(amount: Decimal) -> str:
    """`$1,234.50`, `$0.0123`, `$0.000012`: cents, or as many places as small amounts need."""
    if amount == 0 or abs(amount) >= 1:
        return f"${amount:,.2f}"
    places = max(4, 1 - amount.adjusted())
    return f"${amount:.{places}f}"


def plural(count: int, noun: str) -> str:
    """`1 request`, `2,000 requests`; for nouns that take an s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
