"""Rows as a data frame of pandas or polars. The libraries are the caller's: see `kinds`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lowtide.limits import TABLE_BATCH_ROWS
from lowtide.tables.errors import TableError


class PandasRows:
    """A pandas DataFrame; its index stays what it is."""

    def __init__(self, frame: Any) -> None:
        """Raises TableError."""
        self._frame = frame
        self.columns: Sequence[str] = [str(label) for label in frame.columns]
        refuse_twice(self.columns)

    def __len__(self) -> int:
        return len(self._frame)

    def values(self, columns: Sequence[str], first: int) -> Iterator[Mapping[str, Any]]:
        places = [self.columns.index(name) for name in columns]
        for start in range(first, len(self), TABLE_BATCH_ROWS):
            block = self._frame.iloc[start : start + TABLE_BATCH_ROWS]
            if not places:
                yield from ({} for _ in range(len(block)))
                continue
            read = [_present(block.iloc[:, place]) for place in places]
            for row in zip(*read, strict=True):
                yield dict(zip(columns, row, strict=True))

    def joined(self, fields: Sequence[pa.Field], arrays: Sequence[pa.ChunkedArray]) -> Any:
        added = {}
        for field, array in zip(fields, arrays, strict=True):
            column = array.to_pandas(types_mapper=_nullable().get)
            column.index = self._frame.index
            added[field.name] = column
        return self._frame.assign(**added)


def _present(column: Any) -> list[Any]:
    """The values as Python has them; what pandas takes for missing (NaN, NaT, NA, None) is None."""
    missing = column.isna().tolist()
    return [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]


def _nullable() -> Mapping[pa.DataType, Any]:
    """The types that keep whole numbers and truth values what they are beside rows without any."""
    import pandas

    return {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}


class PolarsRows:
    """A polars DataFrame."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.columns: Sequence[str] = list(frame.columns)

    def __len__(self) -> int:
        return int(self._frame.height)

    def values(self, columns: Sequence[str], first: int) -> Iterator[Mapping[str, Any]]:
        for start in range(first, len(self), TABLE_BATCH_ROWS):
            block = self._frame.slice(start, TABLE_BATCH_ROWS)
            if not columns:
                yield from ({} for _ in range(block.height))
                continue
            yield from block.select(list(columns)).to_dicts()

    def joined(self, fields: Sequence[pa.Field], arrays: Sequence[pa.ChunkedArray]) -> Any:
        import polars

        added = [
            polars.Series(field.name, polars.from_arrow(array))
            for field, array in zip(fields, arrays, strict=True)
        ]
        return self._frame.with_columns(added)


def refuse_twice(names: Sequence[str]) -> None:
    """Raises TableError where two columns share a name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"Two columns are called {', '.join(twice)}.", "Rename one.")
