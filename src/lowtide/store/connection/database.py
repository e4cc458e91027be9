"""Connections, transactions, and the border where the drivers' exceptions end.

Every method of the adapter runs inside one `read()` or one `write()`, which is one transaction.
SQLite has one writer connection and a few readers beside it; PostgreSQL has one pool for both. For
the right to write, organizations and loops wait in turns (ports/turns.py). Invariant: nothing but
StoreError and its two kinds leaves a transaction.
"""

import asyncio
import errno
import inspect
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from sqlalchemy import URL, exc, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from lowtide.core.reporting.shown_url import shown_url
from lowtide.limits import STORE_CONFLICT_TRIES_MAX, STORE_READERS, STORE_WRITER_WAIT_S
from lowtide.ports.store import StoreError, StoreFull, StoreUnavailable, StoreValueError
from lowtide.ports.turns import ACTING_FOR, Turns
from lowtide.store.connection.dialect import prepare_sqlite
from lowtide.store.connection.postgres import driver_state_errors, is_postgres, open_pool
from lowtide.store.connection.sqlite_driver import OneCallDriver

P = ParamSpec("P")
T = TypeVar("T")
Class = TypeVar("Class", bound=type)

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# SQLSTATEs of PostgreSQL (its manual, appendix A).
_DISK_FULL: Final = "53100"
_UNTOLD: Final = frozenset({"22021", "22P05"})  # characters that its encoding has not
_NO_RIGHT: Final = "42501"
_CONFLICTS: Final = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "0A000",  # a migration changed a table under a prepared statement
    }
)
_PASSING: Final = (
    "08",  # connection lost
    "25006",  # read only: a standby, after a switch-over
    "25P03",  # we were too slow inside a transaction
    "40",  # rolled back
    "53",  # out of memory, too many connections
    "55P03",  # a lock was not to be had in time
    "57",  # cancelled by a time-out, shutting down, starting up
    "58",  # its disk failed it
)


class StoreConflict(StoreUnavailable):
    """Two transactions conflicted; this one was undone and may run again."""


class StoreCut(StoreUnavailable):
    """The connection was lost before a commit was asked for: nothing of the transaction is kept."""


class Database:
    """One database behind a reading and a writing side. `name` is its address without secrets."""

    def __init__(self, url: str, writing: Turns | None = None) -> None:
        """`writing`: transactions that write wait for their turn there; none: first come, first
        served. Raises ModuleNotFoundError when the driver for `url` is not installed.
        """
        self.url = url
        self._writing = writing
        self.is_postgres = is_postgres(url)
        self._writer: AsyncEngine
        self._reader: AsyncEngine
        if self.is_postgres:
            self.name = shown_url(url)
            self._writer = open_pool(url)
            self._reader = self._writer.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        else:
            place = make_url(url)
            self.name = place.render_as_string(hide_password=True)
            self._writer = _sqlite(place, writer=True)
            self._reader = _sqlite(place, writer=False)

    @property
    def file(self) -> Path | None:
        """The path of the SQLite file; None for PostgreSQL."""
        path = None if self.is_postgres else make_url(self.url).database
        return Path(path) if path else None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one moment of the database and writes nothing."""
        with mapped_errors():
            async with self._reader.connect() as conn:
                with _cut_mapped():
                    yield conn

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed, durably, when the block ends well; undone otherwise.

        On PostgreSQL each statement sees what was committed before it: lock first, in a statement
        of its own, then read what the lock guards.
        """
        with mapped_errors():
            async with self._turn(), self._writer.begin() as conn:
                with _cut_mapped():  # not around the end: whether a commit got there is not known
                    yield conn

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Waits for the turn of whoever the work is for. Raises TimeoutError."""
        async with AsyncExitStack() as turn:
            if self._writing is not None:
                async with asyncio.timeout(STORE_WRITER_WAIT_S):
                    await turn.enter_async_context(self._writing.of(ACTING_FOR.get()))
            yield

    async def aclose(self) -> None:
        # The writer last: the last connection to leave folds the write-ahead log into the database.
        await self._reader.dispose()
        await self._writer.dispose()


def _sqlite(url: URL, *, writer: bool) -> AsyncEngine:
    engine = create_async_engine(
        url,
        # A URL of another driver brings its own, as the simulator's, which has no threads.
        module=OneCallDriver(only_reads=not writer)
        if url.get_driver_name() == "aiosqlite"
        else None,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1 if writer else STORE_READERS,
        max_overflow=0,
        pool_timeout=STORE_WRITER_WAIT_S,
    )
    prepare_sqlite(engine.sync_engine, writer=writer)
    return engine


def transactional(kind: Class) -> Class:
    """Lets each public method of the class, which is one transaction, run to its end.

    Again after a conflict: the order in which rows are locked leaves few, as a pause of an
    organization locks its batches late, and migrations change tables under other processes. Once
    more where its connection was lost before the commit: PostgreSQL ends the sessions of a process
    that stood still inside a transaction, and administrators end them, too. And although its caller
    was cancelled, who then waits for the end: a driver that is cancelled inside a statement leaves
    its connection behind, on SQLite with the lock that it held.
    """
    for name, method in list(vars(kind).items()):
        if inspect.iscoroutinefunction(method) and not name.startswith("_"):
            setattr(kind, name, _repeating(method))
    return kind


class Transactional:
    """What a port asks of one database; `transactional`, like all classes made of this one."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def __init_subclass__(cls) -> None:
        transactional(cls)


def _repeating(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    async def repeating(*args: P.args, **kwargs: P.kwargs) -> T:
        was_cut = False
        for _ in range(STORE_CONFLICT_TRIES_MAX - 1):
            try:
                return await method(*args, **kwargs)
            except StoreConflict:
                continue  # the others' locks make it wait its turn
            except StoreCut:
                if was_cut:
                    raise  # the database is away, and not only this session
                was_cut = True
        return await method(*args, **kwargs)

    @wraps(method)
    async def to_its_end(*args: P.args, **kwargs: P.kwargs) -> T:
        return await _finish(asyncio.ensure_future(repeating(*args, **kwargs)))

    return to_its_end


async def _finish(transaction: "asyncio.Future[T]") -> T:
    """Waits for it whatever comes; a cancellation of the caller is raised afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not transaction.done():
        try:
            await asyncio.wait([transaction])
        except asyncio.CancelledError as caught:
            cancelled = caught
    if cancelled is None:
        return transaction.result()
    if not transaction.cancelled():
        transaction.exception()  # seen: its caller has left, and nobody else asks
    raise cancelled


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turns what drivers raise into the port's errors; lets everything else pass."""
    try:
        yield
    except exc.DBAPIError as error:
        raise _store_error(error, error.orig) from error
    except (exc.TimeoutError, OSError, sqlite3.Error) as error:
        raise _store_error(error, error) from error
    except driver_state_errors() as error:
        raise StoreUnavailable(f"the database cannot be used now: {error}") from error


@contextmanager
def _cut_mapped() -> Iterator[None]:
    """Raises StoreCut for a connection that the other side ended; lets everything else pass."""
    try:
        yield
    except exc.DBAPIError as error:
        is_cut = error.connection_invalidated or _has_cause(error.orig, driver_state_errors())
        # Where nobody answered, another try would wait as long again, and the caller with it.
        if is_cut and not _has_cause(error.orig, (TimeoutError,)):
            raise StoreCut(f"the database ended the session: {error.orig}") from error
        raise
    except driver_state_errors() as error:
        raise StoreCut(f"the database ended the session: {error}") from error


def _has_cause(error: BaseException | None, kinds: tuple[type[Exception], ...]) -> bool:
    """Whether it, or what it came from, is one of those."""
    while error is not None and not isinstance(error, kinds):
        error = error.__cause__
    return error is not None


def is_locked(error: StoreUnavailable) -> bool:
    """Whether another process held SQLite's lock: the one case that passes within moments."""
    cause = getattr(error.__cause__, "orig", None)
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _store_error(error: Exception, cause: BaseException | None) -> StoreError:
    words = str(cause or error) or type(error).__name__
    state: Any = getattr(cause, "sqlstate", None) or ""
    if _is_full(cause) or state == _DISK_FULL:
        return StoreFull(f"no space left for the database: {words}")
    if state in _UNTOLD:
        return StoreValueError(f"the database cannot hold a value: {words}")
    if state in _CONFLICTS:
        return StoreConflict(f"the database undid the transaction: {words}")
    if (
        state.startswith(_PASSING)
        or isinstance(cause, sqlite3.OperationalError | OSError)
        or isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError)
        or (isinstance(error, exc.DBAPIError) and error.connection_invalidated)
    ):
        return StoreUnavailable(f"the database cannot be used now: {words}")
    if state == _NO_RIGHT:
        words += (
            ". Grant it to the user that server.database_url names: it must own its tables and may"
            " create more, as after GRANT USAGE, CREATE ON SCHEMA public"
        )
    return StoreError(f"the database refused: {words}")


def _is_full(cause: BaseException | None) -> bool:
    if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
        return True
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
