"""store/connection/sqlite_driver.py: one trip to the connection's thread for a statement."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import delete, exc, insert, select, text

from lowtide.ports.store import StoreError
from lowtide.store.connection.database import Database
from lowtide.store.schema.tables import garbage

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = [{"blob_key": f"k{number}", "added_at": NOON} for number in range(3)]
KEYS = {"k0", "k1", "k2"}


@pytest.fixture
async def trips(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[], int]]:
    """How often a thread was asked since this was asked last."""
    count, execute = 0, aiosqlite.Connection._execute

    async def counted(self: aiosqlite.Connection, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return await execute(self, *args, **kwargs)

    def since() -> int:
        nonlocal count
        found, count = count, 0
        return found

    async with database.write() as conn:  # what a connection is asked at first
        await conn.execute(insert(garbage), ROWS)
    async with database.read() as conn:
        await conn.execute(select(garbage))
    monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
    yield since


async def test_a_statement_is_one_trip(database: Database, trips: Callable[[], int]) -> None:
    async with database.read() as conn:
        await conn.execute(select(garbage))  # a transaction begins with its first statement
        trips()
        found = (await conn.execute(select(garbage.c.blob_key))).scalars()
        assert trips() == 1
        assert set(found) == KEYS


async def test_a_transaction_that_reads_once_is_one_trip(
    database: Database, trips: Callable[[], int]
) -> None:
    async with database.read() as conn:
        await conn.execute(select(garbage))
    assert trips() == 1, "the statement begins it, and nobody waits for its end"


async def test_a_transaction_that_writes_once_is_two_trips(
    database: Database, trips: Callable[[], int]
) -> None:
    async with database.write() as conn:
        await conn.execute(delete(garbage))
    assert trips() == 2, "the statement, and the commit"


async def test_a_transaction_without_a_statement_is_no_trip(
    database: Database, trips: Callable[[], int]
) -> None:
    async with database.write(), database.read():
        pass
    assert trips() == 0
    async with database.read() as conn:
        assert set(await conn.scalars(select(garbage.c.blob_key))) == KEYS


async def test_each_reading_sees_what_was_committed_before_it(database: Database) -> None:
    for row in ROWS:
        async with database.write() as conn:
            await conn.execute(insert(garbage), [row])
        async with database.read() as conn:
            assert row["blob_key"] in set(await conn.scalars(select(garbage.c.blob_key)))


async def test_a_reading_sees_one_moment(database: Database) -> None:
    async with database.write() as conn:
        await conn.execute(insert(garbage), ROWS)
    async with database.read() as conn:
        assert set(await conn.scalars(select(garbage.c.blob_key))) == KEYS
        async with database.write() as other:
            await other.execute(delete(garbage))
        assert set(await conn.scalars(select(garbage.c.blob_key))) == KEYS


async def test_a_statement_that_begins_a_transaction_and_fails_leaves_nothing(
    database: Database,
) -> None:
    with pytest.raises(StoreError):
        async with database.write() as conn:
            await conn.execute(text("DELETE FROM nowhere"))
    async with database.write() as conn:
        await conn.execute(insert(garbage), ROWS)
    async with database.read() as conn:
        assert set(await conn.scalars(select(garbage.c.blob_key))) == KEYS


async def test_counts_and_returned_rows_are_those_of_the_driver(database: Database) -> None:
    async with database.write() as conn:
        await conn.execute(insert(garbage), ROWS)
        mine = delete(garbage).where(garbage.c.blob_key == "k0").returning(garbage.c.added_at)
        assert (await conn.execute(mine)).scalar_one() == NOON
        assert (await conn.execute(delete(garbage))).rowcount == 2
        assert (await conn.execute(delete(garbage))).rowcount == 0


async def test_an_error_is_the_drivers_and_the_connection_goes_on(database: Database) -> None:
    async with database.write() as conn:
        with pytest.raises(exc.OperationalError) as caught:
            await conn.execute(text("SELECT nothing FROM nowhere"))
        assert isinstance(caught.value.orig, sqlite3.OperationalError)
        await conn.execute(insert(garbage), ROWS)
    async with database.read() as conn:
        assert set(await conn.scalars(select(garbage.c.blob_key))) == KEYS


async def test_rows_that_are_asked_for_one_by_one_are_read_whole(database: Database) -> None:
    async with database.write() as conn:
        await conn.execute(insert(garbage), ROWS)
    async with database.read() as conn:
        rows = await conn.stream(select(garbage.c.blob_key))
        assert {row.blob_key async for row in rows} == KEYS
