"""The rows that take part, one after another, with the values that requests are made of.

Invariant: a cursor that is opened at a position gives the very rows that one which was read up to
there would give next.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from lowtide.tables.json_fields import is_json_field
from lowtide.tables.python_values import python_values
from lowtide.tables.reader import Table


class Row(msgspec.Struct, frozen=True):
    """One row that takes part: its number in the table from 0, the values that requests need, and
    where relative paths in it start."""

    number: int
    values: Mapping[str, Any]
    folder: Path | None


class RowQueue:
    """Rows one after another, of which the last may be given back."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._kept: Row | None = None

    def next(self) -> Row | None:
        """The next row; None behind the last. Raises TableError."""
        row, self._kept = self._kept, None
        return row if row is not None else next(self._rows, None)

    def put_back(self, row: Row) -> None:
        """Gives a row back, which `next` then gives again."""
        self._kept = row


class RowCursor(RowQueue):
    """Reads `numbers[position:]` of a table, in order."""

    def __init__(
        self, table: Table, columns: Iterable[str], numbers: Sequence[int], position: int = 0
    ) -> None:
        """`numbers` rise. Only `columns` are read."""
        wanted = set(columns)
        self._columns = [name for name in table.schema.names if name in wanted]
        super().__init__(self._read(table, numbers, position))

    def _read(self, table: Table, numbers: Sequence[int], position: int) -> Iterator[Row]:
        if position >= len(numbers):
            return
        # A file that is counted needs no column to be read; Arrow then gives rows without any.
        columns = self._columns or table.schema.names[:1]
        for file, number, batch in chosen_batches(table, columns, numbers, position):
            names = batch.schema.names
            values = zip(*map(_values, batch.schema, batch.columns), strict=True)
            for place, row in enumerate(values):
                yield Row(number[place], dict(zip(names, row, strict=True)), file.folder)


def _values(field: pa.Field, column: pa.Array) -> list[Any]:
    """The values of a column as a template sees them."""
    values = python_values(column, exact=False)
    if not is_json_field(field):
        return values
    return [None if value is None else msgspec.json.decode(value) for value in values]


def chosen_batches(
    table: Table, columns: Sequence[str] | None, numbers: Sequence[int], position: int = 0
) -> Iterator[tuple[Any, Sequence[int], pa.RecordBatch]]:
    """Batches of the rows `numbers[position:]` alone, each with its file and its rows' numbers."""
    if position >= len(numbers):
        return
    start = numbers[position]
    for file, batch in table.batches(columns, start):
        end = start + batch.num_rows
        until = bisect_left(numbers, end, lo=position)
        if until > position:
            chosen = numbers[position:until]
            if len(chosen) < batch.num_rows:
                places = [number - start for number in chosen]
                batch = batch.take(pa.array(places, pa.int64()))
            yield file, chosen, batch
        position, start = until, end
        if position >= len(numbers):
            return
