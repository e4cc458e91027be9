"""Rows as a list of dicts: the plainest kind, and what any other iterable of dicts becomes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
import pyarrow as pa

from lowtide.tables.json_fields import is_json_field


class ListRows:
    """Columns are the keys of all rows, in the order in which they first come."""

    def __init__(self, rows: Iterable[Any]) -> None:
        """Raises TypeError for a row that is no dict."""
        self._rows: Sequence[Mapping[str, Any]] = rows if isinstance(rows, list) else list(rows)
        names: dict[str, None] = {}
        for number, row in enumerate(self._rows):
            if not isinstance(row, Mapping):
                raise TypeError(
                    f"Row {number + 1} is a {type(row).__name__}, not a dict."
                    " Name its value, for example [{'text': value} for value in rows]."
                )
            names.update(dict.fromkeys(row))
        odd = next((name for name in names if not isinstance(name, str)), None)
        if odd is not None:
            raise TypeError(f"The rows have the key {odd!r}; keys must be text.")
        self.columns: Sequence[str] = list(names)

    def __len__(self) -> int:
        return len(self._rows)

    def values(self, columns: Sequence[str], first: int) -> Iterator[Mapping[str, Any]]:
        for row in islice(self._rows, first, None):
            yield {name: row.get(name) for name in columns}

    def joined(
        self, fields: Sequence[pa.Field], arrays: Sequence[pa.ChunkedArray]
    ) -> list[dict[str, Any]]:
        names = [field.name for field in fields]
        columns = [_values(field, array) for field, array in zip(fields, arrays, strict=True)]
        added = zip(*columns, strict=True)
        return [
            {**row, **dict(zip(names, values, strict=True))}
            for row, values in zip(self._rows, added, strict=True)
        ]


def _values(field: pa.Field, array: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = array.to_pylist()
    if not is_json_field(field):
        return values
    return [None if value is None else msgspec.json.decode(value) for value in values]
