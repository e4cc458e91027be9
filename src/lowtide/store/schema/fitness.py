"""Whether a PostgreSQL is one that Lowtide can work with; asked before the schema is touched.

Called by sql_store.py when it opens, and again now and then for `/ready`. Refused are databases
that cannot hold all text (not UTF8), that take no writes, and poolers that hand each transaction to
another session: `LISTEN`, settings of a session and prepared statements do not survive those.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from sqlalchemy import func, select, text

from lowtide.ports.store import StoreError, StoreReadOnly
from lowtide.store.connection.database import Database
from lowtide.store.connection.postgres import connector, driver_errors

_POOLED: Final = (
    "the address of the database is that of a pooler that shares sessions (PgBouncer with pool_mode"
    " = transaction or statement). Name PostgreSQL itself, or a pool with pool_mode = session."
)
_ATTEMPTS: Final = 3
"""Turns of two sessions: one turn may find two free sessions of a pool by chance."""


async def check_fitness(database: Database) -> None:
    """Raises StoreError, which says what is wrong and what to do; nothing for SQLite."""
    if not database.is_postgres:
        return
    await check_writable(database)
    async with database.read() as conn:
        encoding = str(await conn.scalar(text("SHOW server_encoding")))
    if encoding != "UTF8":
        raise StoreError(
            f"the database has the encoding {encoding}, and requests may hold any text. Create it"
            " with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0."
        )
    if await is_pooled(connector(database.url)):
        raise StoreError(_POOLED)


async def check_writable(database: Database) -> None:
    """Raises StoreReadOnly where a write would be refused, StoreError where no answer comes."""
    if not database.is_postgres:
        return
    async with database.read() as conn:
        if await conn.scalar(select(func.pg_is_in_recovery())):
            raise StoreReadOnly(
                "the database is a standby, which takes no writes. Name the primary, or several"
                " hosts with ?target_session_attrs=read-write."
            )
        if await conn.scalar(text("SHOW default_transaction_read_only")) == "on":
            raise StoreReadOnly(
                "the database is read-only (default_transaction_read_only is on for it or for this"
                " user). Set it off, or name another database."
            )


async def is_pooled(connect: Callable[[], Awaitable[Any]]) -> bool:
    """Whether two connections that are open together share a server process, or one changes its
    own: then a pooler before the server assigns sessions. Raises StoreError.
    """
    sessions: list[Any] = []
    seen: list[set[int]] = []
    try:
        for _ in range(2):
            sessions.append(await connect())
            seen.append(set())
        with driver_errors():
            for _ in range(_ATTEMPTS):
                for session, pids in zip(sessions, seen, strict=True):
                    async with session.transaction():
                        pids.add(await session.fetchval("SELECT pg_backend_pid()"))
    finally:
        for session in sessions:
            session.terminate()
    return any(len(pids) > 1 for pids in seen) or bool(seen[0] & seen[1])
