"""Columns whose values have no one type: kept as JSON text, and marked so. Pure.

JSONL rows and schemas may hold nested or mixed values. Such a column is text in memory and in
Parquet; a template gets the value that the text stands for, and a JSONL writer writes it back as it
was.
"""

from typing import Any, Final

import msgspec
import pyarrow as pa

_MARK: Final = {b"lowtide": b"json"}

_encoder: Final = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


def json_text(value: Any) -> str:
    """A value as compact JSON: times in ISO form, bytes in base64, what JSON lacks as text."""
    return _encoder.encode(value).decode()


def json_bytes(value: Any) -> bytes:
    """As `json_text`, in UTF-8."""
    return _encoder.encode(value)


def json_field(name: str) -> pa.Field:
    """A column of JSON text."""
    return pa.field(name, pa.string(), metadata=_MARK)


def is_json_field(field: pa.Field) -> bool:
    """Whether the column's text is JSON by our own mark."""
    return bool(field.metadata) and field.metadata.get(b"lowtide") == b"json"
