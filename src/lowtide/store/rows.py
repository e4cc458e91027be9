"""Rows to records and back.

Used by every class of the adapter. Columns carry the names of the records' fields, so that a field
without a column, or a column of the wrong name, fails in the first test that touches it.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Row

from lowtide.core.batch import Batch, Counts
from lowtide.core.file import File
from lowtide.core.usage import Usage

USAGE_FIELDS: Final = Usage.__struct_fields__
_COUNTS: Final = Counts.__struct_fields__
_BATCH: Final = tuple(f for f in Batch.__struct_fields__ if f not in ("counts", "usage"))


def batch_of(row: Row[Any]) -> Batch:
    values = row._mapping
    return Batch(
        counts=Counts(**{field: values[field] for field in _COUNTS}),
        usage=usage_of_row(values),
        **{field: values[field] for field in _BATCH},
    )


def batch_values(batch: Batch) -> dict[str, Any]:
    values = {field: getattr(batch, field) for field in _BATCH}
    values |= {field: getattr(batch.counts, field) for field in _COUNTS}
    return values | usage_values(batch.usage) | {"ended_at": batch.ended_at}


def usage_of_row(values: Mapping[Any, Any]) -> Usage:
    return Usage(**{field: values[field] for field in USAGE_FIELDS})


def usage_values(usage: Usage) -> dict[str, Any]:
    return {field: getattr(usage, field) for field in USAGE_FIELDS}


def file_of(row: Row[Any]) -> File:
    return File(**{field: row._mapping[field] for field in File.__struct_fields__})


def file_values(file: File) -> dict[str, Any]:
    return {field: getattr(file, field) for field in File.__struct_fields__}
