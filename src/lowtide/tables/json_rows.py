"""JSONL of plain rows: each line an object whose members are the columns.

The reader scans the whole file once to learn the columns and their types, since the last line may
hold what no other has. Types: what all values of a column agree on; whole numbers and fractions
together are fractions; nested or mixed values stay JSON (`json_text`).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa

from lowtide.limits import TABLE_BATCH_ROWS, TABLE_COLUMNS_MAX, TABLE_ROW_BYTES_MAX
from lowtide.tables.errors import TableError
from lowtide.tables.json_fields import is_json_field, json_field
from lowtide.tables.json_text import json_bytes
from lowtide.tables.python_values import python_values

_INT64: Final = range(-(2**63), 2**63)
_EXACT: Final = range(-(2**53), 2**53 + 1)
"""Whole numbers that a 64-bit fraction holds exactly."""
_KINDS: Final[Mapping[frozenset[str], pa.DataType]] = {
    frozenset(): pa.string(),  # nothing but nulls
    frozenset({"bool"}): pa.bool_(),
    frozenset({"exact"}): pa.int64(),
    frozenset({"int"}): pa.int64(),
    frozenset({"exact", "int"}): pa.int64(),
    frozenset({"float"}): pa.float64(),
    frozenset({"exact", "float"}): pa.float64(),
    frozenset({"text"}): pa.string(),
}

_raw_row: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_row: Final = msgspec.json.Decoder(dict[str, Any])
_value: Final = msgspec.json.Decoder()


def scan_rows(stream: BinaryIO, name: str) -> tuple[pa.Schema, int]:
    """Columns in the order in which they first appear, and the count of rows. Raises TableError."""
    seen: dict[str, set[str]] = {}
    rows = 0
    for rows, line in enumerate(_lines(stream, name), 1):
        for column, value in _members(line, name, rows).items():
            kinds = seen.get(column)
            if kinds is None:
                if len(seen) == TABLE_COLUMNS_MAX:
                    raise TableError(f"{name}: more than {TABLE_COLUMNS_MAX:,} columns.")
                kinds = seen[column] = set()
            if value is not None:
                kinds.add(_kind(value))
    return pa.schema([_field(column, frozenset(kinds)) for column, kinds in seen.items()]), rows


def _members(line: bytes, name: str, row: int) -> dict[str, Any]:
    try:
        return _row.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TableError(
            f"{name}, row {row:,}: it is no JSON object ({error}).",
            'Each line is one row, for example {"id": 1, "text": "hello"}.',
        ) from None


def _kind(value: Any) -> str:
    if value is True or value is False:
        return "bool"
    if isinstance(value, int):
        return "exact" if value in _EXACT else "int" if value in _INT64 else "json"
    if isinstance(value, float):
        return "float"
    return "text" if isinstance(value, str) else "json"


def _field(column: str, kinds: frozenset[str]) -> pa.Field:
    kind = _KINDS.get(kinds)
    return json_field(column) if kind is None else pa.field(column, kind)


def _lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Lines that are not blank."""
    is_first = True
    while line := stream.readline(TABLE_ROW_BYTES_MAX):
        if len(line) == TABLE_ROW_BYTES_MAX and not line.endswith(b"\n"):
            raise TableError(f"{name}: a line has more than {TABLE_ROW_BYTES_MAX:,} bytes.")
        if is_first:
            line, is_first = line.removeprefix(b"\xef\xbb\xbf"), False
        if line := line.strip():
            yield line


def json_batches(
    stream: BinaryIO, name: str, schema: pa.Schema, first: int
) -> Iterator[pa.RecordBatch]:
    """The rows after the first `first`, with the columns of `schema`. Raises TableError."""
    lines = islice(_lines(stream, name), first, None)
    fields = list(schema)
    are_raw = [is_json_field(field) for field in fields]
    row = first
    while block := list(islice(lines, TABLE_BATCH_ROWS)):
        rows = [_raw_members(line, name, row + place) for place, line in enumerate(block, 1)]
        row += len(block)
        yield pa.RecordBatch.from_arrays(
            [
                _column(rows, field, is_raw=is_raw)
                for field, is_raw in zip(fields, are_raw, strict=True)
            ],
            schema=schema,
        )


def _raw_members(line: bytes, name: str, row: int) -> dict[str, msgspec.Raw]:
    try:
        return _raw_row.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TableError(f"{name}, row {row:,}: it is no JSON object.") from None


_NULL: Final = msgspec.Raw(b"null")


def _column(
    rows: Sequence[Mapping[str, msgspec.Raw]], field: pa.Field, *, is_raw: bool
) -> pa.Array:
    texts = [bytes(row.get(field.name, _NULL)) for row in rows]
    if is_raw:
        return pa.array([None if t == b"null" else t.decode() for t in texts], pa.string())
    return pa.array(_value.decode(b"[" + b",".join(texts) + b"]"), field.type)


class JsonlWriter:
    """Writes batches as one object a line; every column is a member of every line."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._stream = stream
        self._names = schema.names
        self._are_raw = [is_json_field(field) for field in schema]

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            [None if text is None else msgspec.Raw(text.encode()) for text in column.to_pylist()]
            if is_raw
            else python_values(column, exact=True)
            for is_raw, column in zip(self._are_raw, batch.columns, strict=True)
        ]
        for values in zip(*columns, strict=True):
            self._stream.write(json_bytes(dict(zip(self._names, values, strict=True))) + b"\n")

    def close(self) -> None:
        self._stream.flush()
