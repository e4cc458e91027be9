"""CSV and TSV: text columns in, text out. The reader and the writers call this.

Python's own parser reads, so that a quoted line end, a comma in quotes and a field of megabytes are
what they are, and so that no value is taken for a number: an id `007` stays `007`. A column gets
another type only where the caller names one.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc

from lowtide.limits import CSV_FIELD_CHARS_MAX, TABLE_BATCH_ROWS
from lowtide.tables.errors import TableError
from lowtide.tables.json_fields import is_json_field
from lowtide.tables.json_text import json_text
from lowtide.tables.python_values import python_values

TYPES: Final[Mapping[str, pa.DataType]] = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}
"""What `--types` may name; an empty field of a column that is not text is null."""

DELIMITERS: Final[Mapping[str, str]] = {"csv": ",", "tsv": "\t"}


def read_header(stream: BinaryIO, name: str, delimiter: str) -> list[str]:
    """The names of the columns. Raises TableError for a file without, and for names given twice."""
    names = next(_lines(stream, name, delimiter), None)
    if names is None:
        raise TableError(f"{name} is empty.", "Its first line must name the columns.")
    # A data frame's unnamed index column becomes one that a template can name.
    names = [each or f"column_{place}" for place, each in enumerate(names, 1)]
    twice = sorted({each for each in names if names.count(each) > 1})
    if twice:
        raise TableError(
            f"{name}: the first line names a column twice: {', '.join(twice)}.",
            "Rename one of them; the first line must hold the names of the columns.",
        )
    return names


def csv_batches(
    stream: BinaryIO, name: str, delimiter: str, schema: pa.Schema, first: int
) -> Iterator[pa.RecordBatch]:
    """The rows after the first `first`. Raises TableError for a row with another count of fields,
    for text that is not UTF-8, and for a value that is not of its column's type."""
    header = read_header(stream, name, delimiter)
    stream.seek(0)
    lines = _lines(stream, name, delimiter)
    next(lines)
    row = 0
    while block := list(islice(lines, TABLE_BATCH_ROWS)):
        before, row = row, row + len(block)
        if row > first:
            _check_counts(block, len(header), name, before)
            block = block[max(0, first - before) :]
            yield _batch(block, header, schema, name, row - len(block))


def _lines(stream: BinaryIO, name: str, delimiter: str) -> Iterator[list[str]]:
    """Rows as lists of fields; blank lines are left out, as spreadsheets leave some at the end."""
    csv.field_size_limit(CSV_FIELD_CHARS_MAX)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        yield from (line for line in reader if line)
    except csv.Error as error:
        raise TableError(f"{name}, line {reader.line_num}: {error}.") from None
    except UnicodeDecodeError as error:
        raise TableError(
            f"{name}, near line {reader.line_num + 1}: the text is not UTF-8 ({error.reason}).",
            "Convert it first, for example: iconv -f WINDOWS-1252 -t UTF-8",
        ) from None
    finally:
        text.detach()


def _check_counts(block: Sequence[Sequence[str]], columns: int, name: str, before: int) -> None:
    for place, line in enumerate(block, before + 1):
        if len(line) != columns:
            raise TableError(
                f"{name}, row {place:,}: {len(line)} fields where the first line names"
                f" {columns} columns.",
                "Quote a field that holds the delimiter or a line end.",
            )


def _batch(
    block: Sequence[Sequence[str]],
    header: Sequence[str],
    schema: pa.Schema,
    name: str,
    before: int,
) -> pa.RecordBatch:
    places = {column: place for place, column in enumerate(header)}
    arrays = []
    for field in schema:
        place = places[field.name]
        texts = [line[place] for line in block]
        arrays.append(_typed(texts, field, name, before))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _typed(texts: list[str], field: pa.Field, name: str, before: int) -> pa.Array:
    if field.type == pa.string():
        return pa.array(texts, pa.string())
    values = [text.strip() or None for text in texts]
    try:
        return pc.cast(pa.array(values, pa.string()), field.type)
    except pa.ArrowInvalid:
        for place, value in enumerate(values, before + 1):
            try:
                pc.cast(pa.scalar(value, pa.string()), field.type)
            except pa.ArrowInvalid:
                raise TableError(
                    f"{name}, row {place:,}: {value!r} in the column {field.name} is no"
                    f" {_word(field.type)}.",
                    "Leave the column out of --types to keep it as text.",
                ) from None
        raise


def _word(kind: pa.DataType) -> str:
    return next(word for word, each in TYPES.items() if each == kind)


class CsvWriter:
    """Writes batches as text: null as an empty field, nested values as JSON."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema, delimiter: str) -> None:
        """Raises TableError for a column of bytes, which text cannot hold."""
        binary = [field.name for field in schema if holds_bytes(field.type)]
        if binary:
            raise TableError(
                f"CSV cannot hold the bytes in the column {', '.join(binary)}.",
                "Give the output a name that ends in .parquet.",
            )
        self._text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=False)
        self._write = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._write.writerow(schema.names)
        self._shown = [_shown_as(field) for field in schema]

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            map(shown, python_values(column, exact=True))
            for shown, column in zip(self._shown, batch.columns, strict=True)
        ]
        self._write.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        self._text.flush()
        self._text.detach()


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type have bytes in them, at any depth."""
    if pa.types.is_struct(kind):
        return any(holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return holds_bytes(kind.value_type)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _shown_as(field: pa.Field) -> Callable[[Any], Any]:
    """A function from a value of the column to what the csv module writes; null
    is an empty field.
    """
    if pa.types.is_boolean(field.type):
        return lambda value: value if value is None else ("true" if value else "false")
    if pa.types.is_temporal(field.type) and not pa.types.is_duration(field.type):
        return lambda value: value.isoformat() if hasattr(value, "isoformat") else value
    if pa.types.is_nested(field.type) and not is_json_field(field):
        return lambda value: value if value is None else json_text(value)
    return lambda value: value
