"""Bring the schema to head when the store opens, or find that a newer one will do.

Called by sql_store.py, once a process. The usual case, a database that is at head already, costs
one query and does not import Alembic. Invariant: the check and the migrations are one write
transaction, so processes that start together migrate once, and a migration that fails leaves
nothing behind.
"""

import asyncio
import threading
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, String, column, inspect, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.limits import STORE_BUSY_TIMEOUT_S, STORE_OPEN_RETRY_S
from lowtide.ports.store import StoreError, StoreUnavailable
from lowtide.store.connection.database import Database, StoreConflict, is_locked
from lowtide.store.connection.dialect import lock_name, wait_patiently
from lowtide.store.schema.compatibility import declare, least_code_of, refusal
from lowtide.store.schema.tables import HEAD

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_VERSION = table("alembic_version", column("version_num", String))


async def bring_to_head(database: Database) -> None:
    """Raises StoreError where this code may not work on the database (compatibility.py).

    Tries again while the database is locked: processes that make one SQLite file together meet in
    its switch to the write-ahead log, which SQLite refuses at once instead of waiting. And when it
    was undone in favour of a process at work: a migration locks tables that those use.
    """
    clock = asyncio.get_running_loop()
    give_up_at = clock.time() + STORE_BUSY_TIMEOUT_S
    while True:
        try:
            return await _bring_to_head(database)
        except StoreUnavailable as error:
            passes = isinstance(error, StoreConflict) or is_locked(error)
            if not passes or clock.time() >= give_up_at:
                raise
        await asyncio.sleep(STORE_OPEN_RETRY_S)


async def _bring_to_head(database: Database) -> None:
    async with database.write() as conn:
        await wait_patiently(conn)
        await lock_name(conn, "lowtide schema")
        version = await schema_of(conn)
        if version == HEAD:
            return
        if version is not None:
            refused = refusal(version, await least_code_of(conn))
            if refused is not None:
                raise StoreError(str(refused))
        if version is None or version < HEAD:
            await conn.run_sync(_upgrade)


_alembic: Final = threading.RLock()
"""Alembic keeps what it works on in its modules; two servers of one program open at the same time,
each in its thread. Reentrant, so that a loop with two stores does not wait for itself."""


async def schema_of(conn: AsyncConnection) -> str | None:
    """The revision that the database is at; None while it is empty."""
    if not await conn.run_sync(lambda sync: inspect(sync).has_table(_VERSION.name)):
        return None
    version: str | None = await conn.scalar(select(_VERSION.c.version_num))
    return version


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, "head")
        declare(connection, ScriptDirectory.from_config(config))
