"""Parquet and Arrow IPC: batches in and out, with the types that the file has.

Reading touches one row group's pages at a time, through a small buffer, and skips whole groups
that lie before the first row wanted. Writing gathers rows until a group is worth its overhead:
`limits.TABLE_GROUP_BYTES` or `TABLE_GROUP_ROWS`, which also bounds the memory.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.limits import (
    STREAM_BLOCK_BYTES,
    TABLE_BATCH_ROWS,
    TABLE_GROUP_BYTES,
    TABLE_GROUP_ROWS,
)
from lowtide.tables.errors import TableError


def scan_parquet(stream: BinaryIO, name: str) -> tuple[pa.Schema, int]:
    """Columns and rows, from the file's own description. Raises TableError."""
    file = _parquet(stream, name)
    return file.schema_arrow, file.metadata.num_rows


def parquet_batches(
    stream: BinaryIO, name: str, columns: Sequence[str], first: int
) -> Iterator[pa.RecordBatch]:
    """The rows after the first `first`. Raises TableError."""
    file = _parquet(stream, name)
    groups: list[int] = []
    skip = first
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if not groups and rows <= skip:
            skip -= rows
        else:
            groups.append(group)
    if not groups:
        return
    batches = file.iter_batches(
        TABLE_BATCH_ROWS, row_groups=groups, columns=list(columns), use_threads=False
    )
    try:
        yield from _after(batches, skip)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error) from None


def _parquet(stream: BinaryIO, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream, buffer_size=STREAM_BLOCK_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error) from None


def scan_arrow(stream: BinaryIO, name: str) -> tuple[pa.Schema, int]:
    """Columns and rows. Raises TableError."""
    schema, batches = _ipc(stream, name)
    try:
        return schema, sum(batch.num_rows for batch in batches)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error) from None


def arrow_batches(
    stream: BinaryIO, name: str, columns: Sequence[str], first: int
) -> Iterator[pa.RecordBatch]:
    """The batches of an IPC file or stream, as `parquet_batches` yields them."""
    _, batches = _ipc(stream, name)
    try:
        for batch in _after(batches, first):
            chosen = batch.select(list(columns))
            for start in range(0, chosen.num_rows, TABLE_BATCH_ROWS):
                yield chosen.slice(start, TABLE_BATCH_ROWS)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error) from None


def _ipc(stream: BinaryIO, name: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """A file of either kind: with an index at its end, or a plain stream."""
    try:
        file = pa.ipc.open_file(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
    else:
        return file.schema, (file.get_batch(n) for n in range(file.num_record_batches))
    try:
        reader = pa.ipc.open_stream(stream)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error) from None
    return reader.schema, iter(reader)


def _after(batches: Iterator[pa.RecordBatch], skip: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows <= skip:
            skip -= batch.num_rows
            continue
        yield batch.slice(skip)
        skip = 0


def _damaged(name: str, error: Exception) -> TableError:
    first = str(error).partition("\n")[0]
    return TableError(f"{name} cannot be read: {first}", code="damaged_table")


class _GroupBuffer:
    """Gathers batches until they make a group."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> pa.Table | None:
        """Adds a batch. Returns the group that it completes, if it does."""
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.get_total_buffer_size()
        is_full = self._rows >= TABLE_GROUP_ROWS or self._bytes >= TABLE_GROUP_BYTES
        return self.take() if is_full else None

    def take(self) -> pa.Table | None:
        """Removes and returns what is there, as one table; None where nothing is."""
        if not self._batches:
            return None
        table = pa.Table.from_batches(self._batches, self._schema)
        self._batches, self._rows, self._bytes = [], 0, 0
        return table


class ParquetWriter:
    """Writes row groups, compressed with Zstandard."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(stream, schema, compression="zstd")
        self._buffer = _GroupBuffer(schema)

    def write(self, batch: pa.RecordBatch) -> None:
        if (group := self._buffer.add(batch)) is not None:
            self._writer.write_table(group)

    def close(self) -> None:
        if (group := self._buffer.take()) is not None:
            self._writer.write_table(group)
        self._writer.close()


class ArrowWriter:
    """Writes an IPC file, which Arrow libraries also call Feather."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(stream, schema)
        self._buffer = _GroupBuffer(schema)

    def write(self, batch: pa.RecordBatch) -> None:
        if (group := self._buffer.add(batch)) is not None:
            self._writer.write_table(group.combine_chunks())

    def close(self) -> None:
        if (group := self._buffer.take()) is not None:
            self._writer.write_table(group.combine_chunks())
        self._writer.close()
