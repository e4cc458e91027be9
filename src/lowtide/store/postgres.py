"""Connections to PostgreSQL: where the driver is opened, set up, and its refusals are translated.

Called by engine.py (a pool) and wakeups.py (one connection that listens). The address is libpq's,
whole, as `psql` takes it (`sslmode`, several hosts, `passfile`...): the driver reads it itself.
Invariant: nothing here runs on SQLite, and the driver is imported only when it is wanted.
"""

import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lowtide import limits
from lowtide.ports.store import StoreError, StoreUnavailable

SCHEMES: Final = ("postgresql", "postgres", "postgresql+asyncpg")
DRIVER: Final = "asyncpg"
_SETTINGS: Final = {
    "application_name": "lowtide",
    "statement_timeout": f"{int(limits.STORE_STATEMENT_S * 1000)}",
    "lock_timeout": f"{int(limits.STORE_LOCK_S * 1000)}",
    # A process that was stopped, or cut off, in the middle of a transaction holds locks that others
    # need to take over from it: they must end well before its leases do.
    "idle_in_transaction_session_timeout": f"{int(limits.STORE_IDLE_S * 1000)}",
    "jit": "off",  # it costs a hundred times what our statements do
}


def is_postgres(url: str) -> bool:
    return url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def shown(url: str) -> str:
    """The address without its secrets."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    query = "&".join(
        f"{key}={'***' if 'pass' in key else value}" for key, value in parse_qsl(parts.query)
    )
    hidden = f"{name}:***" if colon else name
    return urlunsplit((parts.scheme, f"{hidden}{at}{place}", parts.path, query, ""))


def open_pool(url: str) -> AsyncEngine:
    """Raises ModuleNotFoundError when the driver is not installed."""
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connector(url),
        isolation_level="READ COMMITTED",
        pool_size=limits.STORE_CONNECTIONS,
        max_overflow=0,
        pool_timeout=limits.STORE_WRITER_WAIT_S,
        pool_pre_ping=True,  # after the database was away, its dead connections are found here
    )


def connector(url: str) -> Callable[[], Awaitable[Any]]:
    """What opens one connection. It raises StoreUnavailable, or StoreError when asked wrongly."""
    import asyncpg  # type: ignore[import-untyped]

    asked = dict(parse_qsl(urlsplit(url).query))
    settings = {key: value for key, value in _SETTINGS.items() if key not in asked}
    dsn = "postgresql://" + url.partition("://")[2]

    async def connect() -> Any:
        with driver_errors():
            connection = await asyncpg.connect(
                dsn,
                timeout=limits.STORE_CONNECT_S,
                command_timeout=limits.STORE_STATEMENT_S + limits.STORE_CONNECT_S,
                server_settings=settings,
            )
            _notice_silence(connection)
            return connection

    return connect


def _notice_silence(connection: Any) -> None:
    """Let the kernel end a connection whose other side takes nothing for as long as a connect may
    last. A network that swallows frames is otherwise found only when the statement times out, and
    a door would keep its callers waiting for that long."""
    sock = connection._transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it
    if option is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, option, int(limits.STORE_CONNECT_S * 1000))


def lost_track() -> tuple[type[Exception], ...]:
    """What the driver raises, past SQLAlchemy, when the server ends a connection just as a
    statement is sent on it; nothing where the driver was never loaded."""
    driver = sys.modules.get(DRIVER)
    return () if driver is None else (driver.InternalClientError,)


@contextmanager
def driver_errors() -> Iterator[None]:
    """Translate what the driver itself raises, where no SQLAlchemy stands between it and us."""
    import asyncpg

    try:
        yield
    except ValueError as error:  # in the address
        raise StoreError(f"the database cannot be addressed: {error}") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        words = str(error) or f"no answer within {limits.STORE_CONNECT_S:g} s"
        raise StoreUnavailable(f"the database cannot be reached: {words}") from error
