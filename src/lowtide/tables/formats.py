"""Which kind of table a name stands for. Pure; the readers and the writers both ask here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from lowtide.tables.errors import TableError

Format = Literal["csv", "tsv", "parquet", "jsonl", "arrow"]

SUFFIXES: Final[Mapping[str, Format]] = MappingProxyType(
    {
        ".csv": "csv",
        ".tsv": "tsv",
        ".tab": "tsv",
        ".parquet": "parquet",
        ".pq": "parquet",
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".arrow": "arrow",
        ".feather": "arrow",
        ".ipc": "arrow",
    }
)


def suffix_format(name: str) -> Format | None:
    """The format that the name's ending stands for; None for another ending."""
    lower = name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if lower.endswith(suffix)), None)


def format_of(name: str) -> Format:
    """The format by the name's ending, as `suffix_format`. Raises TableError for
    an unknown ending.
    """
    table_format = suffix_format(name)
    if table_format is None:
        raise TableError(
            f"{name}: its ending names no kind of table.",
            f"There are: {', '.join(SUFFIXES)}",
            code="unknown_format",
        )
    return table_format
