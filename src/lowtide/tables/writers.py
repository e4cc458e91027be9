"""Joining rows with their answers, and writing them in the format that the output's name asks for.

Invariants: the output has the rows that took part, in the order of the table, each with all of its
columns unchanged; it appears under its name whole or not at all (the caller gives a temporary one).
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO, Final, Protocol

import pyarrow as pa

from lowtide.tables.answers import Answer
from lowtide.tables.arrow_files import ArrowWriter, ParquetWriter
from lowtide.tables.csv_rows import DELIMITERS, CsvWriter, holds_bytes
from lowtide.tables.errors import TableError
from lowtide.tables.formats import Format
from lowtide.tables.json_rows import JsonlWriter
from lowtide.tables.reader import Table
from lowtide.tables.result_columns import ResultColumns
from lowtide.tables.rows import chosen_batches

_TEXT_FORMATS: Final = ("csv", "tsv")


class TableWriter(Protocol):
    """Takes batches of one schema; `close` ends the file, and leaves the stream open."""

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


def table_writer(kind: Format, stream: BinaryIO, schema: pa.Schema) -> TableWriter:
    """The writer of a format. Raises TableError where it cannot hold a column."""
    match kind:
        case "parquet":
            return ParquetWriter(stream, schema)
        case "arrow":
            return ArrowWriter(stream, schema)
        case "jsonl":
            return JsonlWriter(stream, schema)
    return CsvWriter(stream, schema, DELIMITERS[kind])


def result_schema(table: Table, columns: ResultColumns) -> pa.Schema:
    """The columns of the output."""
    return pa.schema([*table.schema, *columns.fields], table.schema.metadata)


def check_writable(kind: Format, schema: pa.Schema) -> None:
    """Refuses now what the writer would refuse when everything has run. Raises TableError."""
    binary = [field.name for field in schema if holds_bytes(field.type)]
    if kind in _TEXT_FORMATS and binary:
        raise TableError(
            f"CSV cannot hold the bytes in the column {', '.join(binary)}.",
            "Give the output a name that ends in .parquet.",
        )


def joined_batches(
    table: Table, numbers: Sequence[int], columns: ResultColumns, answers: Iterator[Answer]
) -> Iterator[pa.RecordBatch]:
    """The rows `numbers` with their answers, which come in the same order."""
    schema = result_schema(table, columns)
    for _, chosen, batch in chosen_batches(table, None, numbers):
        rows = list(islice(answers, len(chosen)))
        if [answer.number for answer in rows] != list(chosen):
            raise TableError(
                "The table is not what it was when the run began.", "Begin anew with --restart."
            )
        yield pa.RecordBatch.from_arrays([*batch.columns, *columns.arrays(rows)], schema=schema)
