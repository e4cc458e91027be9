"""Rows as an Arrow table, and as a Hugging Face Dataset, which holds one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lowtide.client.frame_rows import refuse_twice
from lowtide.limits import TABLE_BATCH_ROWS
from lowtide.tables.python_values import python_values


class ArrowRows:
    """A `pyarrow.Table` or `pyarrow.RecordBatch`."""

    def __init__(self, table: Any) -> None:
        """Raises TableError."""
        self._is_batch = isinstance(table, pa.RecordBatch)
        self._table = pa.Table.from_batches([table]) if self._is_batch else table
        self.columns: Sequence[str] = self._table.schema.names
        refuse_twice(self.columns)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def values(self, columns: Sequence[str], first: int) -> Iterator[Mapping[str, Any]]:
        for start in range(first, len(self), TABLE_BATCH_ROWS):
            yield from values_of(self._table.slice(start, TABLE_BATCH_ROWS), columns)

    def joined(self, fields: Sequence[pa.Field], arrays: Sequence[pa.ChunkedArray]) -> Any:
        schema = pa.schema([*self._table.schema, *fields], self._table.schema.metadata)
        table = pa.Table.from_arrays([*self._table.columns, *arrays], schema=schema)
        if not self._is_batch:
            return table
        whole = [column.combine_chunks() for column in table.columns]
        plain = [each.chunk(0) if isinstance(each, pa.ChunkedArray) else each for each in whole]
        return pa.RecordBatch.from_arrays(plain, schema=schema)


def values_of(table: pa.Table, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a small table."""
    if not columns:
        yield from ({} for _ in range(table.num_rows))
        return
    read = [python_values(table.column(name), exact=False) for name in columns]
    for row in zip(*read, strict=True):
        yield dict(zip(columns, row, strict=True))


class DatasetRows:
    """A `datasets.Dataset`. Values are read as they are stored: an image is its bytes or path, not
    a picture that is decoded and encoded again."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.columns: Sequence[str] = list(dataset.column_names)

    def __len__(self) -> int:
        return len(self._dataset)

    def values(self, columns: Sequence[str], first: int) -> Iterator[Mapping[str, Any]]:
        stored = self._dataset.with_format("arrow")
        for start in range(first, len(self), TABLE_BATCH_ROWS):
            yield from values_of(stored[start : start + TABLE_BATCH_ROWS], columns)

    def joined(self, fields: Sequence[pa.Field], arrays: Sequence[pa.ChunkedArray]) -> Any:
        import datasets

        if not len(self):  # joining leaves out what has no rows, with its columns
            return datasets.Dataset(
                ArrowRows(self._dataset.with_format("arrow")[:]).joined(fields, arrays)
            )
        added = datasets.Dataset(pa.Table.from_arrays(list(arrays), schema=pa.schema(fields)))
        return datasets.concatenate_datasets([self._dataset, added], axis=1)
