"""A driver for SQLite that goes to its thread once for a statement.

Made by database.py for every connection. aiosqlite has a thread for each connection, and SQLAlchemy
asks it for a transaction, a cursor, the execution, the rows, the cursor's end and the transaction's
one after another: each time two threads wait for each other and for the interpreter, which others
may hold. Here a statement is one call, the first of a transaction begins it, and the end of a
transaction that only read is not waited for. Invariants: rows are read whole; a transaction
without a statement never began.
"""

import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import aiosqlite
import msgspec
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_dbapi,
)


class _Executed(msgspec.Struct, frozen=True):
    """What is known of a statement when it has ended."""

    description: Any = None
    rowcount: int = -1
    lastrowid: int | None = None
    rows: list[Any] = []


_NOTHING: Final = _Executed()


class OneCallCursor(AsyncAdapt_aiosqlite_cursor):
    """A cursor that exists in the connection's thread only while its statement runs there."""

    __slots__ = ()

    def _make_new_cursor(self, _connection: Any) -> Any:
        return _NOTHING

    def _aenter_cursor(self, cursor: Any) -> Any:
        return cursor

    async def _async_soft_close(self) -> None:
        """Does nothing: there is nothing left to close."""

    def close(self) -> None:
        self._rows.clear()

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        await self._run(sqlite3.Cursor.execute, operation, () if parameters is None else parameters)

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> Any:
        await self._run(sqlite3.Cursor.executemany, operation, seq_of_parameters)

    async def _run(self, execute: Callable[..., Any], operation: Any, parameters: Any) -> None:
        adapted: Any = self._adapt_connection
        connection: Any = self._connection
        async with adapted._execute_mutex:
            beginning = adapted.begin()
            done = await connection._execute(
                _executed, connection._conn, beginning, execute, operation, parameters
            )
        self._cursor = done
        self._rows = deque(done.rows)


def _executed(
    connection: sqlite3.Connection,
    beginning: str | None,
    execute: Callable[..., Any],
    operation: Any,
    parameters: Any,
) -> _Executed:
    """Runs a statement to its end, in the connection's thread, after the beginning of its
    transaction where that is still to come.
    """
    cursor = connection.cursor()
    try:
        if beginning is not None:
            cursor.execute(beginning)
        execute(cursor, operation, parameters)
        rows = cursor.fetchall() if cursor.description else []
        return _Executed(cursor.description, cursor.rowcount, cursor.lastrowid, rows)
    finally:
        cursor.close()


class OneCallConnection(AsyncAdapt_aiosqlite_connection):
    """A connection with such cursors. `beginning` is what its next statement begins with."""

    __slots__ = ("beginning", "is_open", "only_reads")

    _cursor_cls = OneCallCursor
    _ss_cursor_cls: Any = OneCallCursor

    def __init__(self, dbapi: Any, connection: Any, *, only_reads: bool) -> None:
        super().__init__(dbapi, connection)
        self.only_reads = only_reads
        self.beginning: str | None = None
        self.is_open = False  # whether a transaction is, or was asked to be

    def begin(self) -> str | None:
        """What is to be executed before a statement; None: nothing."""
        beginning, self.beginning = self.beginning, None
        self.is_open = self.is_open or beginning is not None
        return beginning

    def commit(self) -> None:
        self.beginning = None
        if self.is_open:
            super().commit()
            self.is_open = False

    def rollback(self) -> None:
        self.beginning = None
        was_open, self.is_open = self.is_open, False
        connection: Any = self._connection
        if was_open and self.only_reads and connection._connection:
            # The thread does one thing after another: the next statement comes after this.
            connection._tx.put_nowait((None, connection._conn.rollback))
        elif was_open:
            super().rollback()


class OneCallDriver(AsyncAdapt_aiosqlite_dbapi):
    """The driver that `create_async_engine(module=...)` is given."""

    def __init__(self, *, only_reads: bool) -> None:
        """`only_reads`: no transaction of its connections changes anything."""
        super().__init__(aiosqlite, sqlite3)
        self._only_reads = only_reads

    def connect(self, *args: Any, **kwargs: Any) -> OneCallConnection:
        made = super().connect(*args, **kwargs)
        return OneCallConnection(self, made._connection, only_reads=self._only_reads)
