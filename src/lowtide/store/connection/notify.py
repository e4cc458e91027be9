"""`ports.wakeups.Wakeups` over LISTEN/NOTIFY of PostgreSQL; on SQLite there is no listener.

The listener has one connection beside the pool. `announce` is called by the classes of the adapter,
inside their transactions. Invariant: an announcement is sent if and when its transaction commits.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.limits import WAKEUPS_PROBE_S
from lowtide.ports.wakeups import TOPICS, Topic
from lowtide.store.connection.database import Database
from lowtide.store.connection.postgres import connector, driver_errors

CHANNEL: Final = "lowtide"


async def announce(conn: AsyncConnection, *topics: Topic) -> None:
    """Tells the loops of all processes, once this transaction is committed."""
    if conn.dialect.name == "postgresql":
        for topic in topics:
            await conn.execute(select(func.pg_notify(CHANNEL, topic)))


class SqlWakeups:
    """Announcements of other processes, and of this one."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def listen(self, wake: Callable[[Topic], None]) -> bool:
        if not self._db.is_postgres:
            return False
        connection = await connector(self._db.url)()
        try:
            with driver_errors():
                await connection.add_listener(CHANNEL, lambda *said: _hear(said[-1], wake))
            for topic in TOPICS:
                wake(topic)
            await _until_lost(connection)
        finally:
            connection.terminate()
        return True


def _hear(said: str, wake: Callable[[Topic], None]) -> None:
    for topic in TOPICS:
        if said == topic:
            wake(topic)


async def _until_lost(connection: Any) -> None:
    """Checks the connection now and then: a host that lost power sends no end. Raises
    StoreUnavailable.
    """
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    while not (ended.is_set() or connection.is_closed()):
        with suppress(TimeoutError):
            async with asyncio.timeout(WAKEUPS_PROBE_S):
                await ended.wait()
                return
        with driver_errors():
            await connection.execute("SELECT 1")
