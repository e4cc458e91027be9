"""Which code may run on which schema, so that old and new versions can work side by side.

Migrations expand: they add tables, nullable columns and indexes, and code that does not know of
them goes on. So the database says itself which is the oldest code that may still run on it, by
the HEAD that this code needs: the table `schema_compatibility` has it, from the `least_code` that
the newest revision declaring one declares. Databases of development versions, from before the
first schema, are refused. Called by migrate.py when the store opens, by `lowtide doctor` and by
`lowtide restore`.
"""

from typing import TYPE_CHECKING, Final

import msgspec
from sqlalchemy import Connection, delete, insert, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide.store.schema.tables import HEAD, schema_compatibility

if TYPE_CHECKING:  # not loaded where there is nothing to migrate
    from alembic.script import ScriptDirectory

FIRST: Final = "0013"
"""The first schema. Development versions had those below, which nothing brings up to date."""


class SchemaRefusal(msgspec.Struct, frozen=True):
    """Why this code does not work on a database, and what to do about it; for people."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}"


async def least_code_of(conn: AsyncConnection) -> str | None:
    """The least HEAD that the schema asks of code; None: it does not say."""
    name = schema_compatibility.name
    if not await conn.run_sync(lambda sync: inspect(sync).has_table(name)):
        return None
    value: str | None = await conn.scalar(select(schema_compatibility.c.least_code))
    return value


def refusal(schema: str, least_code: str | None) -> SchemaRefusal | None:
    """None: this code may work on a database with `schema`, once that is at HEAD or later."""
    if schema < FIRST:
        return SchemaRefusal(
            f"the database has schema {schema}, of a development version of Lowtide from before"
            f" the first schema ({FIRST}), and cannot be brought up to date",
            "Begin with an empty one (another server.data_dir or server.database_url); the"
            " version that made this one can still read it.",
        )
    if schema <= HEAD or (least_code is not None and least_code <= HEAD):
        return None
    needed = f"code for schema {least_code} or later" if least_code else f"code for {schema}"
    return SchemaRefusal(
        f"the database has schema {schema}, which a newer Lowtide made and which needs {needed};"
        f" this Lowtide knows up to {HEAD}",
        "Install that newer Lowtide here, or restore a backup from before.",
    )


def declare(connection: Connection, scripts: "ScriptDirectory") -> None:
    """Writes down what the newest revisions say of the code that may run."""
    said = (getattr(each.module, "least_code", None) for each in scripts.walk_revisions())
    least_code = next((each for each in said if each is not None), None)  # newest first
    assert least_code is not None, "the first revision says it"
    connection.execute(delete(schema_compatibility))
    connection.execute(insert(schema_compatibility).values(least_code=least_code))
