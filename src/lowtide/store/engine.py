"""Connections, transactions, and the border where the drivers' exceptions end.

Every method of the adapter runs inside one `read()` or one `write()`, which is one transaction.
SQLite has one writer connection, for which callers queue in order, and a few readers beside it;
PostgreSQL has one pool for both. Invariant: nothing but StoreError and its two kinds leaves a
transaction.
"""

import errno
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from sqlalchemy import exc, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from lowtide.limits import STORE_READERS, STORE_WRITER_WAIT_S
from lowtide.ports.store import StoreError, StoreFull, StoreUnavailable
from lowtide.store.dialect import prepare_sqlite

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_SQLSTATE_DISK_FULL: Final = "53100"  # PostgreSQL


class Database:
    """One database behind a reading and a writing side."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self._writer: AsyncEngine
        self._reader: AsyncEngine
        if self.url.get_backend_name() == "sqlite":
            self._writer = self._sqlite(writer=True)
            self._reader = self._sqlite(writer=False)
        else:
            self._writer = self._reader = create_async_engine(self.url, pool_pre_ping=True)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one moment of the database and writes nothing."""
        with mapped_errors():
            async with self._reader.connect() as conn:
                yield conn

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed, durably, when the block ends well; undone otherwise."""
        with mapped_errors():
            async with self._writer.begin() as conn:
                yield conn

    async def aclose(self) -> None:
        # The writer last: the last connection to leave folds the write-ahead log into the database.
        await self._reader.dispose()
        await self._writer.dispose()

    def _sqlite(self, *, writer: bool) -> AsyncEngine:
        engine = create_async_engine(
            self.url,
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1 if writer else STORE_READERS,
            max_overflow=0,
            pool_timeout=STORE_WRITER_WAIT_S,
        )
        prepare_sqlite(engine.sync_engine, writer=writer)
        return engine


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn what drivers raise into the port's three errors; let everything else pass."""
    try:
        yield
    except exc.DBAPIError as error:
        raise _store_error(error, error.orig) from error
    except (exc.TimeoutError, OSError, sqlite3.Error) as error:
        raise _store_error(error, error) from error


def is_locked(error: StoreUnavailable) -> bool:
    """Whether another process held SQLite's lock: the one case that passes within moments."""
    cause = getattr(error.__cause__, "orig", None)
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _store_error(error: Exception, cause: BaseException | None) -> StoreError:
    words = str(cause or error)
    if _is_full(cause):
        return StoreFull(f"no space left for the database: {words}")
    if isinstance(cause, sqlite3.OperationalError | OSError) or isinstance(
        error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError
    ):
        return StoreUnavailable(f"the database cannot be used now: {words}")
    return StoreError(f"the database refused: {words}")


def _is_full(cause: BaseException | None) -> bool:
    if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
        return True
    if getattr(cause, "sqlstate", None) == _SQLSTATE_DISK_FULL:
        return True
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
