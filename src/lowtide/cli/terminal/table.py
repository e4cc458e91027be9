"""Tables and lists of fields on standard output.

On a terminal ids, numbers and instants are never cut or broken; names are cut with an ellipsis
where there is no room; other text breaks between words. Elsewhere a table becomes tab-separated
lines, so that grep, cut and awk see whole values.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from lowtide.cli.terminal.console import NARROW_COLUMNS, OUT, cell, is_narrow, printable, write
from lowtide.cli.terminal.units import human_age, human_instant

_NAME_COLUMNS_MIN: Final = 12


class Column(NamedTuple):
    """A heading, and how the values below it are laid out."""

    heading: str
    kind: Literal["text", "whole", "name", "number"] = "text"


def whole(heading: str) -> Column:
    """Ids, states, instants: never broken, never cut."""
    return Column(heading, "whole")


def name(heading: str) -> Column:
    """Names that others chose: on one line, and cut where there is no room."""
    return Column(heading, "name")


def number(heading: str) -> Column:
    """Numbers with or without a unit: read from the right."""
    return Column(heading, "number")


_LAYOUT: Final[dict[str, dict[str, Any]]] = {
    "text": {"overflow": "fold"},
    "whole": {"no_wrap": True},
    "name": {"no_wrap": True, "overflow": "ellipsis"},
    "number": {"no_wrap": True, "justify": "right"},
}


def created(columns: int = NARROW_COLUMNS) -> tuple[Column, Callable[[int | None], str]]:
    """Returns the column of when a thing was made, and what shows the Unix timestamp of one: its
    age where there is no room for the instant, on a terminal of fewer columns."""
    if is_narrow(columns):
        return whole("age"), human_age
    return whole("created"), human_instant


def show_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows under headings. Values are plain text, not markup."""
    values = [[cell(value) for value in row] for row in rows]
    if not OUT.is_terminal:
        for row in ([column.heading for column in columns], *values):
            sys.stdout.write("\t".join(row) + "\n")
        return
    widths = [
        max([cell_len(column.heading), *(cell_len(row[place]) for row in values)])
        for place, column in enumerate(columns)
    ]
    is_dense = sum(widths) + 2 * (len(widths) - 1) > OUT.width
    gaps = (1 if is_dense else 2) * (len(widths) - 1)
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=is_dense)
    for column, width in zip(columns, _fitted(columns, widths, OUT.width - gaps), strict=True):
        table.add_column(column.heading, width=width, **_LAYOUT[column.kind])
    for row in values:
        table.add_row(*map(escape, row))
    OUT.print(table)
    if not values:
        OUT.print("[dim]none[/]")


def _fitted(columns: Sequence[Column], widths: list[int], room: int) -> list[int]:
    """Returns the widths, those of names and texts less by what there is no room for."""
    over = sum(widths) - room
    fitted = list(widths)
    by_width = sorted(range(len(widths)), key=lambda place: -widths[place])
    for place in [p for p in by_width if columns[p].kind in ("name", "text")]:
        spared = max(0, min(over, widths[place] - _NAME_COLUMNS_MIN))
        fitted[place] -= spared
        over -= spared
    return fitted


def show_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Prints names and values, one pair a line. Values may hold markup."""
    pairs = list(fields)
    if not OUT.is_terminal:
        for field, value in pairs:
            write(f"{field}: {value}")
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for field, value in pairs:
        grid.add_row(field, printable(value))
    OUT.print(grid)
