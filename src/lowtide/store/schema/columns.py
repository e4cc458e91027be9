"""Columns and their types: how words, instants and small structures lie in the database.

Used by the modules of tables alone. Invariant: an instant comes back as it went in, aware UTC and
exact to the microsecond, whichever database keeps it; both databases sort and compare it as a plain
integer.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, Column, ColumnElement, Dialect, String, Text
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

WORD: Final = String().with_variant(String(collation="C"), "postgresql")
"""Ids, names, states, keys. Compared byte by byte: one order in both databases and in Python, and
indexes that a new version of the machine's locales cannot spoil."""


class Instant(TypeDecorator[datetime]):
    """Aware UTC <-> microseconds since 1970. Raises ValueError for an instant without a zone."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: instants are aware UTC")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else _EPOCH + value * _MICROSECOND


class Json(TypeDecorator[Any]):
    """A value of one msgspec-able type, as JSON text. `shape` names that type."""

    impl = Text
    cache_ok = True

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.shape = shape

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        return None if value is None else msgspec.json.decode(value, type=self.shape)


class Words(TypeDecorator[tuple[str, ...]]):
    """A sorted set of words, joined by commas; null is the empty one, so that `is_(None)` asks for
    it."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        is_postgres = dialect.name == "postgresql"
        return dialect.type_descriptor(String(collation="C") if is_postgres else String())

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return ",".join(value) if value else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...]:  # noqa: ARG002
        return tuple(value.split(",")) if value else ()


def text(name: str, *, nullable: bool = False, **rest: Any) -> Column[str]:
    return Column(name, WORD, nullable=nullable, **rest)


def count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def at(name: str, *, nullable: bool = True, **rest: Any) -> Column[Any]:
    return Column(name, Instant, nullable=nullable, **rest)


def only(rows: ColumnElement[bool]) -> dict[str, Any]:
    """The keywords of an index that has these rows alone."""
    return {"sqlite_where": rows, "postgresql_where": rows}
