"""Columns whose values have no one type: kept as JSON text, and marked so. Pure.

JSONL rows and schemas may hold nested or mixed values. Such a column is text in memory and in
Parquet; a template gets the value that the text stands for, and a JSONL writer writes it back as it
was.
"""

from typing import Final

import pyarrow as pa

_MARK: Final = {b"lowtide": b"json"}


def json_field(name: str) -> pa.Field:
    """A column of JSON text."""
    return pa.field(name, pa.string(), metadata=_MARK)


def is_json_field(field: pa.Field) -> bool:
    """Whether the column's text is JSON by Lowtide's own mark."""
    return bool(field.metadata) and field.metadata.get(b"lowtide") == b"json"
