"""What a database says of itself, for start-up probes and `lowtide doctor`; nothing is changed."""

import msgspec
from sqlalchemy import extract, func, select, text

from lowtide.ports.clock import Clock
from lowtide.store.connection.database import Database
from lowtide.store.schema.compatibility import least_code_of
from lowtide.store.schema.migrate import schema_of

_UNSAFE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class DatabaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`schema` is None in an empty database; `least_code` is what it asks of code.

    `clock_ahead_s`: how far this machine's clock is ahead of the server's, give or take half a
    round trip. `unsafe`: settings under which a commit that has returned may be lost in a crash.
    """

    schema: str | None
    least_code: str | None = None
    server: str = "SQLite"
    clock_ahead_s: float = 0.0
    is_standby: bool = False
    unsafe: tuple[str, ...] = ()


async def facts_of(database: Database, clock: Clock) -> DatabaseFacts:
    """Raises StoreError."""
    async with database.read() as conn:
        schema, least_code = await schema_of(conn), await least_code_of(conn)
        if not database.is_postgres:
            return DatabaseFacts(schema=schema, least_code=least_code)
        before = clock.now()
        theirs = await conn.scalar(select(extract("epoch", func.clock_timestamp())))
        ours = before + (clock.now() - before) / 2
        settings = await conn.execute(
            text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)"),
            {"names": [*_UNSAFE, "server_version"]},
        )
        by_name = {row.name: str(row.setting) for row in settings}
        return DatabaseFacts(
            schema=schema,
            least_code=least_code,
            server=f"PostgreSQL {by_name['server_version']}",
            clock_ahead_s=ours.timestamp() - float(str(theirs)),
            is_standby=bool(await conn.scalar(select(func.pg_is_in_recovery()))),
            unsafe=tuple(f"{k} = {v}" for k, v in _UNSAFE.items() if by_name.get(k) == v),
        )
