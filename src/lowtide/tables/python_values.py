"""A column's values as Python has them, for templates and for formats of text. Pure.

Python's times end at a microsecond, and data frames often hold nanoseconds: Arrow would refuse such
a value. Invariant: every value comes out; where Python cannot hold it exactly, a writer gets text.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def python_values(column: pa.Array, *, exact: bool) -> list[Any]:
    """`exact`: times with nanoseconds come as text; else they are cut to microseconds."""
    kind = _in_microseconds(column.type)
    if kind == column.type:
        values: list[Any] = column.to_pylist()
        return values
    if exact:
        try:
            whole: list[Any] = pc.cast(column, kind).to_pylist()
            return whole
        except pa.ArrowInvalid:
            if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
                texts: list[Any] = pc.cast(column, pa.string()).to_pylist()
                return texts
    cut: list[Any] = pc.cast(column, kind, safe=False).to_pylist()
    return cut


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """The type with every nanosecond in it, at any depth, as a microsecond."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz) if kind.unit == "ns" else kind
    if pa.types.is_duration(kind):
        return pa.duration("us") if kind.unit == "ns" else kind
    if pa.types.is_time64(kind):
        return pa.time64("us") if kind.unit == "ns" else kind
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    if pa.types.is_struct(kind):
        fields = (kind.field(place) for place in range(kind.num_fields))
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in fields])
    return kind
