"""The real SQLite under SQLAlchemy's async engine, without its thread: `sqlite+inline:///path`.

Statements run where they are called, so a run has one order of things. Around each, the world of
the calling process may let time pass, fail, or kill (`Process.gate`): before a statement, before a
commit, and after it, when it is durable and no caller knows it yet. Waiting for another process's
lock takes virtual time. Importing this module makes the URL known.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Literal

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util.concurrency import await_only

from lowtide.limits import STORE_BUSY_TIMEOUT_S
from testkit.sim.process import PROCESS, Process

Moment = Literal["db.statement", "db.commit", "db.committed"]
Gate = Callable[[Moment, str], Awaitable[None] | None]

_LOCK_POLL_S: Final = 0.02
_LEFT_OUT: Final = ("PRAGMA busy_timeout", "PRAGMA synchronous", "PRAGMA fullfsync")
"""Settings about threads and power cuts: neither exists here."""

gates: dict[str, Gate] = {}
"""What the world does to those who use a database, by its path."""
commits: dict[str, Callable[[], None]] = {}
"""Called at every commit that changed something, by path."""


class _Connection:
    """A sqlite3 connection as its process sees it."""

    def __init__(self, path: str, **settings: Any) -> None:
        self._process = PROCESS.get()
        self._path = path
        self._gate = gates[path]
        self._raw = sqlite3.connect(path, timeout=0, **settings)
        self._changes = 0
        if self._process is not None:
            self._process.exit_if_dead()
            self._process.connections.append(self._raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._raw, name, value)

    def cursor(self) -> "_Cursor":
        return _Cursor(self, self._raw.cursor())

    def commit(self) -> None:
        if not self._raw.in_transaction:
            return
        self.pass_gate("db.commit", "")
        self._raw.commit()
        if self._raw.total_changes != self._changes:
            self._changes = self._raw.total_changes
            commits[self._path]()
        self.pass_gate("db.committed", "")

    def rollback(self) -> None:
        _exit_if_dead()
        self._raw.rollback()

    def close(self) -> None:
        self._raw.close()

    def pass_gate(self, moment: Moment, statement: str) -> None:
        _exit_if_dead()
        await_only(self._gate(moment, statement) or _nothing())  # SQLAlchemy insists on an await
        _exit_if_dead()


class _Cursor:
    """Holds its rows: a statement left half read would keep a dead process's lock."""

    def __init__(self, connection: _Connection, raw: sqlite3.Cursor) -> None:
        self._connection = connection
        self._raw = raw
        self._rows: deque[Any] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return [self._rows.popleft() for _ in range(min(size or 1, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        return self.fetchmany(len(self._rows))

    def execute(self, statement: str, parameters: Any = ()) -> None:
        if statement.startswith(_LEFT_OUT):
            return
        self._connection.pass_gate("db.statement", statement)
        if statement == "BEGIN IMMEDIATE":
            self._begin()
        else:
            self._rows = deque(self._raw.execute(statement, parameters).fetchall())

    async def _async_soft_close(self) -> None:
        """Rows are fetched as they are read: nothing is held for them."""

    def executemany(self, statement: str, rows: Iterable[Any]) -> None:
        self._connection.pass_gate("db.statement", statement)
        self._raw.executemany(statement, rows)

    def _begin(self) -> None:
        """Take the write lock, or wait for it as `busy_timeout` would."""
        give_up_at_s = asyncio.get_running_loop().time() + STORE_BUSY_TIMEOUT_S
        while True:
            try:
                self._raw.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not locked or asyncio.get_running_loop().time() >= give_up_at_s:
                    raise
            else:
                return
            await_only(asyncio.sleep(_LOCK_POLL_S))
            _exit_if_dead()


class _Driver:
    """`sqlite3` with another `connect`."""

    connect = _Connection

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)


class InlineDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's own dialect, told that this driver may be awaited in."""

    driver = "inline"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        return _Driver()

    @classmethod
    def get_pool_class(cls, url: Any) -> type[Pool]:  # noqa: ARG003
        return AsyncAdaptedQueuePool

    def get_driver_connection(self, connection: Any) -> Any:
        return connection


async def _nothing() -> None:
    """Does nothing, at once."""


def _exit_if_dead() -> None:
    process: Process | None = PROCESS.get()
    if process is not None:
        process.exit_if_dead()


registry.register("sqlite.inline", __name__, "InlineDialect")
