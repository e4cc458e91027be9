"""Every revision of the schema, one after another: code of before can go on beside each.

The rules that writers of migrations follow stand in docs/how-to/upgrading.md.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, inspect

from lowtide.store.connection.database import Database
from lowtide.store.schema.compatibility import FIRST, least_code_of
from lowtide.store.schema.migrate import MIGRATIONS, bring_to_head
from lowtide.store.schema.tables import HEAD
from testkit.next_version import write_next_migrations
from testkit.postgres import PostgresServer

Tables = dict[str, dict[str, Any]]


def config(migrations: Path, connection: Connection | None = None) -> Config:
    made = Config()
    made.set_main_option("script_location", str(migrations))
    made.attributes["connection"] = connection
    return made


def revisions(migrations: Path = MIGRATIONS) -> list[Script]:
    return list(ScriptDirectory.from_config(config(migrations)).walk_revisions())[::-1]


def least_code(revision: Script) -> str | None:
    found: str | None = getattr(revision.module, "least_code", None)
    return found


def tables(connection: Connection) -> Tables:
    """What other code could trip over."""
    found = inspect(connection)
    return {
        name: {
            "columns": {
                column["name"]: (
                    str(column["type"]),
                    column["nullable"] or column["default"] is not None,
                )
                for column in found.get_columns(name)
            },
            "key": found.get_pk_constraint(name)["constrained_columns"],
            "unique": sorted(
                [str(each["column_names"]) for each in found.get_unique_constraints(name)]
                + [str(each["column_names"]) for each in found.get_indexes(name) if each["unique"]]
            ),
            "checks": sorted(each["sqltext"] for each in found.get_check_constraints(name)),
            "references": sorted(
                str(each["referred_table"]) for each in found.get_foreign_keys(name)
            ),
        }
        for name in found.get_table_names()
    }


def stumbling_blocks(before: Tables, after: Tables) -> list[str]:
    """What of the change code that does not know of it could not bear."""
    found = [f"table {name} is gone" for name in before.keys() - after.keys()]
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        for column, (kind, optional) in new["columns"].items():
            known = old["columns"].get(column)
            if known is None and not optional:
                found.append(f"{name}.{column} is new and must be given")
            if known is not None and known != (kind, optional):
                found.append(f"{name}.{column} was {known} and is {(kind, optional)}")
        found += [f"{name}.{c} is gone" for c in old["columns"].keys() - new["columns"].keys()]
        found += [
            f"{name}: {part} was {old[part]} and is {new[part]}"
            for part in ("key", "unique", "checks", "references")
            if old[part] != new[part]
        ]
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without a table."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as name:
        yield server.url(name)


async def test_each_revision_only_adds_or_says_which_code_it_shuts_out(
    empty: str, tmp_path: Path
) -> None:
    """And so does the one that tests of upgrades add."""
    database = Database(empty)
    migrations = write_next_migrations(tmp_path)

    def upgrade(connection: Connection, revision: str) -> None:
        command.upgrade(config(migrations, connection), revision)

    before: Tables = {}
    for revision in revisions(migrations):
        async with database.write() as conn:
            await conn.run_sync(upgrade, revision.revision)
            after = await conn.run_sync(tables)
        if least_code(revision) != revision.revision:
            assert stumbling_blocks(before, after) == [], revision.path
        before = after
    await database.aclose()


def test_what_revisions_say_of_code_never_goes_back_or_ahead() -> None:
    last = FIRST
    for revision in revisions():
        said = least_code(revision)
        if said is not None:
            assert last <= said <= revision.revision, revision.path
            last = said


async def test_a_database_at_head_says_which_code_may_run_on_it(empty: str) -> None:
    database = Database(empty)
    await bring_to_head(database)
    async with database.read() as conn:
        said = [least_code(revision) for revision in revisions()]
        assert await least_code_of(conn) == [each for each in said if each][-1]
        assert (await least_code_of(conn) or "") <= HEAD
    await database.aclose()


def test_what_old_code_could_not_bear_is_found() -> None:
    """The judge of the test above can judge."""
    column = {"id": ("BIGINT", False), "name": ("TEXT", True)}
    plain = {"key": ["id"], "unique": [], "checks": [], "references": []}
    before: Tables = {"a": {"columns": column, **plain}, "b": {"columns": column, **plain}}

    def after(**changes: Any) -> Tables:
        return {"a": before["a"] | changes, "b": before["b"]}

    assert stumbling_blocks(before, before | {"c": before["a"]}) == []
    assert stumbling_blocks(before, after(columns=column | {"more": ("TEXT", True)})) == []
    for change in (
        {"a": before["a"]},
        after(columns={"id": ("BIGINT", False)}),
        after(columns=column | {"more": ("TEXT", False)}),
        after(columns=column | {"name": ("BIGINT", True)}),
        after(columns=column | {"name": ("TEXT", False)}),
        after(unique=["['name']"]),
        after(checks=["id > 0"]),
    ):
        assert len(stumbling_blocks(before, change)) == 1
