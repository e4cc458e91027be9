"""Which kind of rows a caller has: decided by what is passed in, so that no library is required.

Invariant: pandas, polars and datasets are never imported here; who passes their objects has them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

_KINDS = "a list of dicts, a pandas or polars DataFrame, an Arrow table or a Hugging Face Dataset"


class Rows(Protocol):
    """Rows of one kind. `name` says which, for messages."""

    @property
    def columns(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def values(self, columns: Sequence[str], first: int) -> Iterator[Mapping[str, Any]]:
        """The values of `columns` in each row from `first` on, as a template meets them: what is
        missing is None."""

    def joined(self, fields: Sequence[pa.Field], arrays: Sequence[pa.ChunkedArray]) -> Any:
        """The same kind, with these columns beside its own."""


def rows_of(given: Any) -> Rows:
    """Raises TypeError for what has no rows, and TableError for columns that share a name."""
    home, name = _origin(given)
    match home, name:
        case "pandas", "DataFrame":
            from lowtide.client.frame_rows import PandasRows

            return PandasRows(given)
        case "polars", "DataFrame":
            from lowtide.client.frame_rows import PolarsRows

            return PolarsRows(given)
        case "polars", "LazyFrame":
            raise TypeError("rows is a LazyFrame: its rows are not there yet. Pass rows.collect().")
        case "datasets", "Dataset":
            from lowtide.client.arrow_rows import DatasetRows

            return DatasetRows(given)
        case "datasets", ("DatasetDict" | "IterableDatasetDict"):
            raise TypeError(f"rows is a {name}: pass one of its splits, for example rows['train'].")
        case "datasets", "IterableDataset":
            raise TypeError(
                "rows is an IterableDataset: pass rows.take(n) as a list, or a Dataset."
            )
    if isinstance(given, pa.Table | pa.RecordBatch):
        from lowtide.client.arrow_rows import ArrowRows

        return ArrowRows(given)
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"rows is a {type(given).__name__}; it must be {_KINDS}.")
    from lowtide.client.list_rows import ListRows

    return ListRows(given)


def _origin(given: Any) -> tuple[str, str]:
    """The library that the type, or one that it extends, is of, and the type's name there."""
    names = {"DataFrame", "LazyFrame", "Dataset", "DatasetDict", "IterableDataset"}
    for kind in type(given).__mro__:
        home = kind.__module__.partition(".")[0]
        if home in ("pandas", "polars", "datasets") and kind.__name__ in names:
            return home, kind.__name__
    return "", ""
