"""A driver for SQLite that goes to its thread once for a statement.

Made by database.py for every connection. aiosqlite has a thread for each connection, and SQLAlchemy
asks it for a cursor, the execution, the rows and the cursor's end one after another: four times two
threads wait for each other and for the interpreter, which others may hold. Here the four are one
call. Invariant: rows are read whole, as SQLAlchemy does without a server-side cursor, which this
leaves as it is.
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
        connection: Any = self._connection
        async with self._adapt_connection._execute_mutex:
            done = await connection._execute(
                _executed, connection._conn, execute, operation, parameters
            )
        self._cursor = done
        self._rows = deque(done.rows)


def _executed(
    connection: sqlite3.Connection, execute: Callable[..., Any], operation: Any, parameters: Any
) -> _Executed:
    """Runs a statement to its end, in the connection's thread."""
    cursor = connection.cursor()
    try:
        execute(cursor, operation, parameters)
        rows = cursor.fetchall() if cursor.description else []
        return _Executed(cursor.description, cursor.rowcount, cursor.lastrowid, rows)
    finally:
        cursor.close()


class OneCallConnection(AsyncAdapt_aiosqlite_connection):
    """A connection with such cursors."""

    __slots__ = ()

    _cursor_cls = OneCallCursor


class OneCallDriver(AsyncAdapt_aiosqlite_dbapi):
    """The driver that `create_async_engine(module=...)` is given."""

    def __init__(self) -> None:
        super().__init__(aiosqlite, sqlite3)

    def connect(self, *args: Any, **kwargs: Any) -> OneCallConnection:
        made = super().connect(*args, **kwargs)
        return OneCallConnection(self, made._connection)
