"""Which code may run on which schema, so that old and new versions can work side by side.

Migrations expand: they add tables, nullable columns and indexes, and code that does not know of
them goes on. So the database says itself which is the oldest code that may still run on it, by
the HEAD that this code needs: the table `schema_compatibility` has it, from the `least_code` that
the newest revision declaring one declares. Code from before that table (HEAD below 0004) refuses
every newer schema. Called by migrate.py when the store opens, and by `lowtide doctor`.
"""

from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, delete, insert, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.store.schema.tables import HEAD, schema_compatibility

if TYPE_CHECKING:  # not loaded where there is nothing to migrate
    from alembic.script import ScriptDirectory

REMEDY: Final = "Install that newer Lowtide here, or restore a backup from before."


async def least_code_of(conn: AsyncConnection) -> str | None:
    """The least HEAD that the schema asks of code; None: it does not say (below 0004)."""
    name = schema_compatibility.name
    if not await conn.run_sync(lambda sync: inspect(sync).has_table(name)):
        return None
    found: str | None = await conn.scalar(select(schema_compatibility.c.least_code))
    return found


def is_compatible(least_code: str | None) -> bool:
    """Whether this code may run on a newer schema that asks for `least_code`."""
    return least_code is not None and least_code <= HEAD


def schema_refusal(schema: str, least_code: str | None) -> str:
    """Why not, for a person."""
    needed = f"code for schema {least_code} or later" if least_code else f"code for {schema}"
    return (
        f"the database has schema {schema}, which a newer Lowtide made and which needs {needed};"
        f" this Lowtide knows up to {HEAD}"
    )


def declare(connection: Connection, scripts: "ScriptDirectory") -> None:
    """Write down what the newest revisions say of the code that may run."""
    said = (getattr(each.module, "least_code", None) for each in scripts.walk_revisions())
    least_code = next((each for each in said if each is not None), None)  # newest first
    assert least_code is not None, "0004 says it"
    connection.execute(delete(schema_compatibility))
    connection.execute(insert(schema_compatibility).values(least_code=least_code))
