"""A table as one sequence of rows, whatever files it lies in.

`open_table` looks at every file before anything runs: their columns agree, every row can be read.
`batches` then gives the rows in the order of the files, as often as it is asked, from any row on.
Invariant: row numbers and columns are the same each time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lowtide.tables import csv_rows
from lowtide.tables.arrow_files import arrow_batches, parquet_batches, scan_arrow, scan_parquet
from lowtide.tables.errors import TableError
from lowtide.tables.json_fields import is_json_field, json_field
from lowtide.tables.json_rows import json_batches, scan_rows
from lowtide.tables.sources import TableFile, find_files


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, and the files with the count of rows in each."""

    schema: pa.Schema
    files: tuple[tuple[TableFile, int], ...]

    @property
    def rows(self) -> int:
        return sum(count for _, count in self.files)

    def batches(
        self, columns: Sequence[str] | None = None, first: int = 0
    ) -> Iterator[tuple[TableFile, pa.RecordBatch]]:
        """Each batch with the file that it is of; the rows after the first `first`, with the
        columns named, or all. Raises TableError."""
        names = self.schema.names if columns is None else list(columns)
        schema = pa.schema([self.schema.field(name) for name in names], self.schema.metadata)
        for file, count in self.files:
            if first >= count:
                first -= count
                continue
            with file.open() as stream:
                for batch in _batches(file, stream, schema, first):
                    yield file, batch
            first = 0


def open_table(
    address: str,
    types: Mapping[str, str] | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> Table:
    """Finds and looks through all files. `types`: by column, a word of `csv_rows.TYPES`. `advance`
    is told how many files are done, and of how many.

    Raises TableError for what cannot be read, and for files whose columns do not agree.
    """
    files = find_files(address)
    if types and files[0].kind not in ("csv", "tsv"):
        raise TableError(
            f"--types is for CSV and TSV; {files[0].name} has types of its own.",
            "Leave it out.",
        )
    scans = []
    for done, file in enumerate(files):
        advance(done, len(files))
        scans.append(_scan(file, types or {}))
    schema = scans[0][0]
    for file, (other, _) in zip(files[1:], scans[1:], strict=True):
        schema = _unified(schema, other, files[0].name, file.name)
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise TableError(f"{address}: two columns are called {', '.join(twice)}.", "Rename one.")
    counts = zip(files, (rows for _, rows in scans), strict=True)
    return Table(_plain(schema), tuple(counts))


def _scan(file: TableFile, types: Mapping[str, str]) -> tuple[pa.Schema, int]:
    with file.open() as stream:
        match file.kind:
            case "parquet":
                return scan_parquet(stream, file.name)
            case "arrow":
                return scan_arrow(stream, file.name)
            case "jsonl":
                return scan_rows(stream, file.name)
        delimiter = csv_rows.DELIMITERS[file.kind]
        header = csv_rows.read_header(stream, file.name, delimiter)
        schema = _csv_schema(header, types, file.name)
        stream.seek(0)
        rows = csv_rows.csv_batches(stream, file.name, delimiter, schema, 0)
        return schema, sum(batch.num_rows for batch in rows)


def _csv_schema(header: Sequence[str], types: Mapping[str, str], name: str) -> pa.Schema:
    unknown = sorted(types.keys() - set(header))
    if unknown:
        raise TableError(
            f"--types names {', '.join(unknown)}, and {name} has no such column.",
            f"Its columns: {', '.join(header)}",
            code="unknown_column",
        )
    return pa.schema([(c, csv_rows.TYPES[types.get(c, "text")]) for c in header])


def _unified(schema: pa.Schema, other: pa.Schema, first: str, name: str) -> pa.Schema:
    """The columns of both, in the order of the first.

    JSONL rows may lack columns; files of the other kinds must have the same.
    """
    missing = sorted(set(schema.names) ^ set(other.names))
    if missing and not (first.endswith(("jsonl", "ndjson"))):
        raise TableError(
            f"{first} and {name} do not have the same columns: only one has {', '.join(missing)}.",
            "Give each its own run, or make their columns alike.",
        )
    fields = []
    for column in dict.fromkeys((*schema.names, *other.names)):
        sides = [each.field(column) for each in (schema, other) if column in each.names]
        fields.append(_one_field(sides, name))
    return pa.schema(fields, schema.metadata)


def _one_field(sides: Sequence[pa.Field], name: str) -> pa.Field:
    left, right = sides[0], sides[-1]
    if left.type == right.type and is_json_field(left) == is_json_field(right):
        return left
    if is_json_field(left) or is_json_field(right):
        return json_field(left.name)
    try:
        both = pa.unify_schemas(
            [pa.schema([left]), pa.schema([right])], promote_options="permissive"
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise TableError(
            f"{name}: the column {left.name} is {right.type}, and {left.type} in another file.",
            "Make the types alike, or give each file its own run.",
        ) from None
    return both.field(0)


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema with dictionary-encoded columns as what they encode: batches differ
    in dictionaries.
    """
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def _batches(
    file: TableFile, stream: object, schema: pa.Schema, first: int
) -> Iterator[pa.RecordBatch]:
    match file.kind:
        case "parquet":
            batches = parquet_batches(stream, file.name, schema.names, first)  # type: ignore[arg-type]
        case "arrow":
            batches = arrow_batches(stream, file.name, schema.names, first)  # type: ignore[arg-type]
        case "jsonl":
            yield from json_batches(stream, file.name, schema, first)  # type: ignore[arg-type]
            return
        case _:
            delimiter = csv_rows.DELIMITERS[file.kind]
            yield from csv_rows.csv_batches(stream, file.name, delimiter, schema, first)  # type: ignore[arg-type]
            return
    for batch in batches:
        yield batch.select(schema.names).cast(schema) if batch.schema != schema else batch
