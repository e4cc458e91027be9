"""Connections to PostgreSQL: where the driver is opened, set up, and its refusals are translated.

Called by database.py (a pool) and notify.py (one connection that listens). The address is libpq's,
whole, as `psql` takes it (`sslmode`, several hosts, `passfile`...): the driver reads it itself.
Invariant: nothing here runs on SQLite, and the driver is imported only when it is wanted.
"""

import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lowtide import limits
from lowtide.ports.store import StoreError, StoreUnavailable

SCHEMES: Final = ("postgresql", "postgres", "postgresql+asyncpg")
DRIVER: Final = "asyncpg"
_ADDRESS: Final = (
    "server.database_url is no address that the driver can read. Write special characters of user"
    " and password as in URLs (@ is %40, / is %2F, # is %23, ? is %3F, % is %25, : is %3A), or give"
    " the password in PGPASSWORD."
)
_NOT_THE_ADDRESS: Final = (
    (
        "root certificate file",
        "server.database_url asks for the database's certificate to be checked (sslmode), and the"
        " file of authorities to trust is not there or cannot be read: name it with"
        " sslrootcert=/path/to/ca.pem in the address, or put it at ~/.postgresql/root.crt.",
    ),
    (
        "`sslmode` parameter",
        "sslmode in server.database_url must be disable, allow, prefer, require, verify-ca or"
        " verify-full.",
    ),
)
"""What the driver says of an address that it could read, and what Lowtide says instead: the
driver's words quote parts of the address, which may be of a password.
"""
_FILES: Final[tuple[str, ...]] = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_NO_USER: Final = (
    "server.database_url names no user, and the user of this process has no name on this machine:"
    " name one in the address, or in PGUSER."
)
_POOLER_PARAMETERS: Final = (
    "the address of the database is that of a pooler that refuses settings of a session. Name"
    " PostgreSQL itself, or have PgBouncer run with pool_mode = session and"
    " ignore_startup_parameters = statement_timeout,lock_timeout,jit,"
    "idle_in_transaction_session_timeout."
)
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

    if _is_cut_short(url):
        raise StoreError(_ADDRESS)
    try:
        asked = dict(parse_qsl(urlsplit(url).query))
    except ValueError:  # brackets in a password
        raise StoreError(_ADDRESS) from None
    settings = {key: value for key, value in _SETTINGS.items() if key not in asked}
    dsn = "postgresql://" + url.partition("://")[2]

    files = {key: asked[key] for key in _FILES if key in asked}

    async def connect() -> Any:
        _check_readable(files)
        with driver_errors():
            try:
                connection = await asyncpg.connect(
                    dsn,
                    timeout=limits.STORE_CONNECT_S,
                    command_timeout=limits.STORE_STATEMENT_S + limits.STORE_CONNECT_S,
                    server_settings=settings,
                )
            except KeyError:  # the driver asks the system for the name of this process's user
                raise StoreError(_NO_USER) from None
            _notice_silence(connection)
            return connection

    return connect


def _is_cut_short(url: str) -> bool:
    """Whether a user or password seems to have a character in it that ends them, for an `@` is left
    behind it. The driver would take the rest for the name of a host, and not find it.
    """
    address, _, query = url.partition("://")[2].partition("?")
    login, at, _ = re.split("[/#]", address, maxsplit=1)[0].rpartition("@")
    return "@" in login or (not at and "@" in address) or "@" in query.partition("=")[0]


def _check_readable(files: Mapping[str, str]) -> None:
    """Raises StoreError. The driver would say "No such file" of a missing one, as of a socket."""
    for key, path in files.items():
        if path != "system" and not os.access(path, os.R_OK):
            raise StoreError(
                f"the file that server.database_url names as {key} is not there or cannot be read"
            )


def _notice_silence(connection: Any) -> None:
    """Lets the kernel end a connection whose other side takes nothing for as long as a connect may
    last. A network that swallows frames is otherwise found only when the statement times out, and
    an HTTP API would keep its callers waiting for that long."""
    sock = connection._transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it
    if option is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, option, int(limits.STORE_CONNECT_S * 1000))


def driver_state_errors() -> tuple[type[Exception], ...]:
    """What the driver raises, past SQLAlchemy, when the server ends a connection just as a
    statement is sent on it; nothing where the driver was never loaded."""
    driver = sys.modules.get(DRIVER)
    return () if driver is None else (driver.InternalClientError,)


@contextmanager
def driver_errors() -> Iterator[None]:
    """Translates what the driver itself raises, where it is called without SQLAlchemy."""
    import asyncpg

    try:
        yield
    except ValueError as error:  # in the address
        known = (words for sign, words in _NOT_THE_ADDRESS if sign in str(error))
        raise StoreError(next(known, _ADDRESS)) from None
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" in str(error):
            raise StoreError(_POOLER_PARAMETERS) from error
        raise StoreUnavailable(f"the database cannot be reached: {error}") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        words = str(error) or f"no answer within {limits.STORE_CONNECT_S:g} s"
        raise StoreUnavailable(f"the database cannot be reached: {words}") from error
