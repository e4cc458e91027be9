"""Transactions on SQLite, and the border where drivers' exceptions end."""

import asyncio
import errno
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from lowtide.ports.store import StoreError, StoreFull, StoreUnavailable
from lowtide.ports.turns import ACTING_FOR
from lowtide.service.fair_places import FairPlaces
from lowtide.store.connection import database as database_module
from lowtide.store.connection import dialect
from lowtide.store.connection.database import Database, mapped_errors, transactional
from lowtide.store.schema.tables import garbage, slices
from testkit.patience import PATIENCE_S

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def add(database: Database, key: str) -> None:
    async with database.write() as conn:
        await conn.execute(insert(garbage), {"blob_key": key, "added_at": NOON})


async def keys(database: Database) -> set[str]:
    async with database.read() as conn:
        return set(await conn.scalars(select(garbage.c.blob_key)))


async def test_the_writer_is_durable_and_readers_cannot_write(database: Database) -> None:
    async with database.write() as conn:
        assert await conn.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await conn.scalar(text("PRAGMA synchronous")) == 2
        assert await conn.scalar(text("PRAGMA foreign_keys")) == 1
    with pytest.raises(StoreUnavailable, match="readonly"):
        async with database.read() as conn:
            await conn.execute(insert(garbage), {"blob_key": "k", "added_at": NOON})


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    with pytest.raises(LookupError):
        async with database.write() as conn:
            await conn.execute(insert(garbage), {"blob_key": "k", "added_at": NOON})
            raise LookupError
    assert await keys(database) == set()


async def test_readers_do_not_wait_for_the_writer(database: Database) -> None:
    async with database.write() as conn:
        await conn.execute(insert(garbage), {"blob_key": "k", "added_at": NOON})
        assert await asyncio.wait_for(keys(database), PATIENCE_S) == set()
    assert await keys(database) == {"k"}


async def test_a_reader_sees_one_moment(database: Database) -> None:
    count = select(func.count()).select_from(garbage)
    async with database.read() as conn:
        assert await conn.scalar(count) == 0
        await add(database, "k")
        assert await conn.scalar(count) == 0


async def test_writers_queue_and_all_of_them_write(database: Database) -> None:
    await asyncio.gather(*(add(database, f"k{number}") for number in range(50)))
    assert len(await keys(database)) == 50


async def test_a_cancelled_writer_leaves_nothing_and_blocks_nobody(database: Database) -> None:
    inside = asyncio.Event()

    async def write_and_wait() -> None:
        async with database.write() as conn:
            await conn.execute(insert(garbage), {"blob_key": "half", "added_at": NOON})
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_and_wait())
    await inside.wait()
    waiting = asyncio.create_task(add(database, "whole"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(waiting, PATIENCE_S)
    assert await keys(database) == {"whole"}


@transactional
class Pairs:
    """A store whose one transaction writes two rows."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def pair(self, number: int) -> None:
        async with self.database.write() as conn:
            for half in "ab":
                row = {"blob_key": f"{number}{half}", "added_at": NOON}
                await conn.execute(insert(garbage), row)


async def test_a_store_method_that_is_cancelled_at_any_instant_still_ends(
    database: Database,
) -> None:
    """Cut at many different awaits: no half, and no connection left behind with its lock."""
    pair = Pairs(database).pair
    for number in range(40):
        task = asyncio.create_task(pair(number))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() or number > 3  # the last ones may have been quicker
    await asyncio.wait_for(pair(99), PATIENCE_S)
    seen = await keys(database)
    assert {"99a", "99b"} <= seen
    assert {key[:-1] + "a" for key in seen} == {key[:-1] + "a" for key in seen if key[-1] == "b"}
    assert len(seen) % 2 == 0


# ---- the border


async def test_a_full_database_is_store_full_and_recovers(database: Database) -> None:
    async with database.write() as conn:
        pages = await conn.scalar(text("PRAGMA page_count"))
        await conn.execute(text(f"PRAGMA max_page_count = {pages + 1}"))
    with pytest.raises(StoreFull, match="full"):
        await add(database, "k" * 100_000)
    assert await keys(database) == set()
    async with database.write() as conn:
        await conn.execute(text("PRAGMA max_page_count = 1000000"))
    await add(database, "k" * 100_000)
    assert len(await keys(database)) == 1


async def test_a_database_locked_by_another_process_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, database: Database, path: Path
) -> None:
    await database.aclose()
    hasty = tuple(s.replace("5000", "20") for s in dialect._SQLITE_ALL)
    assert hasty != dialect._SQLITE_ALL
    monkeypatch.setattr(dialect, "_SQLITE_ALL", hasty)
    second = Database(f"sqlite+aiosqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await add(second, "k")
        assert await keys(second) == set(), "reading goes on"
        other.execute("ROLLBACK")
    await add(second, "k")
    assert await keys(second) == {"k"}
    await second.aclose()


async def test_a_broken_rule_of_the_schema_is_a_store_error(database: Database) -> None:
    orphan = dict.fromkeys((column.name for column in slices.columns), 0)
    with pytest.raises(StoreError, match="FOREIGN KEY") as caught:
        async with database.write() as conn:
            await conn.execute(insert(slices), orphan | {"batch_id": "ghost", "segment_key": "s"})
    assert type(caught.value) is StoreError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "no space"), StoreFull),
        (OSError(errno.EDQUOT, "over quota"), StoreFull),
        (OSError(errno.EIO, "bad disk"), StoreUnavailable),
        (ConnectionRefusedError("no server"), StoreUnavailable),
        (sqlite3.OperationalError("disk I/O error"), StoreUnavailable),
        (sqlite3.IntegrityError("twice"), StoreError),
    ],
)
def test_foreign_exceptions_become_the_ports_own(error: Exception, kind: type[StoreError]) -> None:
    with pytest.raises(StoreError) as caught, mapped_errors():
        raise error
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


async def test_organizations_write_in_turns_and_whoever_comes_anew_is_next(
    database: Database,
) -> None:
    """A asks for fifty writes, then B for one: it waits for the one that is under way."""
    shared = Database(database.url, FairPlaces(1))
    order: list[str] = []

    async def write(owner: str) -> None:
        ACTING_FOR.set(owner)
        async with shared.write() as conn:
            order.append(owner)
            await conn.execute(select(1))

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for owner in ["A"] * 50 + ["B"]:
            group.create_task(write(owner))
    await shared.aclose()
    assert order.index("B") == 1
    assert len(order) == 51


async def test_a_turn_that_does_not_come_is_a_store_that_cannot_be_used(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "STORE_WRITER_WAIT_S", 0.0)
    shared = Database(database.url, turns := FairPlaces(1))
    async with turns.of("A"):
        with pytest.raises(StoreUnavailable):
            async with shared.write():
                raise AssertionError("it is not its turn")
    await shared.aclose()
