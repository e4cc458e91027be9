"""Rows to records and back.

Used by every class of the adapter. Columns carry the names of the records' fields, so that a field
without a column, or a column of the wrong name, fails in the first test that touches it.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import asdict
from sqlalchemy import Row

from lowtide.core.accounts.ledger import LedgerEntry
from lowtide.core.accounts.money import UnitPrices
from lowtide.core.accounts.tenancy import Organization
from lowtide.core.batches.batch import Batch, Counts
from lowtide.core.usage import Usage

USAGE_FIELDS: Final = Usage.__struct_fields__
_COUNTS: Final = Counts.__struct_fields__
_PRICES: Final = UnitPrices.__struct_fields__
_ENTRY: Final = tuple(
    field
    for field in LedgerEntry.__struct_fields__
    if field not in ("usage", "live_prices", "batch_prices", "discount")
)
_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_BATCH: Final = tuple(f for f in Batch.__struct_fields__ if f not in ("counts", "usage"))


def values_of(row: Row[Any]) -> dict[str, Any]:
    """The columns by their names. A row's own mapping takes some ten times as long to ask, and a
    page has thousands of columns.
    """
    return dict(zip(row._fields, row, strict=True))


def struct_of(kind: type[_Struct], row: Row[Any]) -> _Struct:
    """The struct whose fields are columns of the row."""
    values = values_of(row)
    return kind(**{field: values[field] for field in kind.__struct_fields__})


def structs_of(kind: type[_Struct], rows: Iterable[Row[Any]]) -> list[_Struct]:
    return [struct_of(kind, row) for row in rows]


def struct_or_none(kind: type[_Struct], row: Row[Any] | None) -> _Struct | None:
    return None if row is None else struct_of(kind, row)


def batch_of(row: Row[Any]) -> Batch:
    values = row._mapping  # by keys, as not every column of a batch has its field's name
    return Batch(
        counts=Counts(**{field: values[field] for field in _COUNTS}),
        usage=usage_of_row(values),
        **{field: values[field] for field in _BATCH},
    )


def batch_values(batch: Batch) -> dict[str, Any]:
    values = {field: getattr(batch, field) for field in _BATCH}
    values |= {field: getattr(batch.counts, field) for field in _COUNTS}
    return values | asdict(batch.usage) | {"ended_at": batch.ended_at}


def usage_of_row(values: Mapping[Any, Any]) -> Usage:
    return Usage(**{field: values[field] for field in USAGE_FIELDS})


def entry_of(row: Row[Any]) -> LedgerEntry:
    values = values_of(row)
    return LedgerEntry(
        usage=usage_of_row(values),
        live_prices=prices_of_row(values, "live"),
        batch_prices=prices_of_row(values, "batch"),
        discount=Decimal(values["discount"]),
        **{field: values[field] for field in _ENTRY},
    )


def entry_values(entry: LedgerEntry) -> dict[str, Any]:
    values = {field: getattr(entry, field) for field in _ENTRY}
    values |= {f"live_{name}": getattr(entry.live_prices, name) for name in _PRICES}
    values |= {f"batch_{name}": getattr(entry.batch_prices, name) for name in _PRICES}
    return values | asdict(entry.usage) | {"discount": str(entry.discount)}


def prices_of_row(values: Mapping[Any, Any], kind: str) -> UnitPrices:
    """`kind` is live or batch."""
    return UnitPrices(**{name: values[f"{kind}_{name}"] for name in _PRICES})


def organization_values(organization: Organization) -> dict[str, Any]:
    bounds = organization.limits
    copied = {"requests_in_flight": bounds.requests_in_flight, "weight": bounds.weight}
    return asdict(organization) | copied
