"""The one place where the two databases differ: settings of a connection, locks on a name, and
inserts that may find their row.

Called by database.py and by statements that must be alone on a project. Invariant: on SQLite
a write transaction begins with the write lock, so everything after it is alone; PostgreSQL
locks rows instead.
"""

import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Table, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.limits import STORE_BUSY_TIMEOUT_S, STORE_WAL_BYTES_KEPT
from lowtide.store.connection.sqlite_driver import OneCallConnection

_SQLITE_ALL = (
    f"PRAGMA busy_timeout = {int(STORE_BUSY_TIMEOUT_S * 1000)}",
    "PRAGMA foreign_keys = ON",
)
_SQLITE_WRITER = (
    "PRAGMA journal_mode = WAL",  # readers never wait for the writer, nor it for them
    "PRAGMA synchronous = FULL",  # a commit that has returned survives a power cut
    "PRAGMA fullfsync = ON",  # the same on macOS, where fsync alone promises less
    f"PRAGMA journal_size_limit = {STORE_WAL_BYTES_KEPT}",
)
_SQLITE_READER = ("PRAGMA query_only = ON",)


def prepare_sqlite(engine: Engine, *, writer: bool) -> None:
    """Gives every new connection of `engine` its settings, and begins its transactions: a writer's
    with the write lock.
    """
    settings = _SQLITE_ALL + (_SQLITE_WRITER if writer else _SQLITE_READER)
    first_word = "BEGIN IMMEDIATE" if writer else "BEGIN"

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _record: Any) -> None:
        with ExitStack() as undo:
            undo.callback(connection.close)  # no pool knows it yet: its thread would stay behind
            connection.isolation_level = None  # the driver begins too late, and without the lock
            cursor = connection.cursor()
            for setting in settings:
                cursor.execute(setting)
            cursor.close()
            undo.pop_all()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        driver = connection.connection.dbapi_connection
        if isinstance(driver, OneCallConnection):
            driver.beginning = first_word  # goes with the first statement
        else:
            connection.exec_driver_sql(first_word)


def make_sqlite_file(path: Path) -> None:
    """Makes the file, for its owner alone, and its folder where they are missing. Raises
    sqlite3.Error or OSError.

    Also a probe: a failed connect of the async driver leaves its thread behind, this one nothing.
    SQLite gives the log and the index beside the file the mode that the file has.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path)):
        pass


async def lock_name(conn: AsyncConnection, name: str) -> None:
    """Locks the name until this transaction ends, against all others that lock it."""
    if conn.dialect.name == "postgresql":
        await conn.execute(select(func.pg_advisory_xact_lock(zlib.crc32(name.encode()))))


async def insert_missing(
    conn: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Inserts those rows whose keys are not there; two transactions may do so at once."""
    if rows:
        dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(table).on_conflict_do_nothing()
        await conn.execute(insert, [dict(row) for row in rows])


async def insert_or_replace(
    conn: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Inserts those rows; one whose key is there gets the new values. Rows name all columns."""
    if rows:
        dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(table)
        replaced = {
            column.name: insert.excluded[column.name]
            for column in table.columns
            if not column.primary_key
        }
        upsert = insert.on_conflict_do_update(index_elements=table.primary_key, set_=replaced)
        await conn.execute(upsert, [dict(row) for row in rows])


async def wait_patiently(conn: AsyncConnection) -> None:
    """Lets this transaction's statements and locks take as long as they need: a migration may."""
    if conn.dialect.name == "postgresql":
        await conn.execute(text("SET LOCAL statement_timeout = 0"))
        await conn.execute(text("SET LOCAL lock_timeout = 0"))
        await conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
