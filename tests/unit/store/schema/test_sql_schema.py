"""The schema, its history, and how a database is brought to head."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from lowtide.ports.store import StoreError
from lowtide.store.connection.database import Database
from lowtide.store.schema.columns import Instant
from lowtide.store.schema.compatibility import FIRST
from lowtide.store.schema.migrate import MIGRATIONS
from lowtide.store.schema.tables import HEAD, metadata
from lowtide.store.sql_store import SqlStore
from testkit.patience import PATIENCE_S


def definitions(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic_version%'"
    )
    return {name: " ".join((sql or "").split()) for name, sql in rows}


def test_the_migrations_make_exactly_the_tables_that_statements_use(
    database: Database, path: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made.db"
    engine = sa.create_engine(f"sqlite:///{made}")
    metadata.create_all(engine)
    engine.dispose()
    with closing(sqlite3.connect(path)) as migrated, closing(sqlite3.connect(made)) as created:
        assert definitions(migrated) == definitions(created)
        assert len(definitions(migrated)) > 15


def test_alembic_sees_nothing_to_migrate(database: Database, path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_head_in_code_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert script.get_current_head() == HEAD
    revisions = sorted(revision.revision for revision in script.walk_revisions())
    first = int(FIRST)
    assert revisions == [f"{number:04d}" for number in range(first, first + len(revisions))]


async def test_a_database_newer_than_the_code_is_refused_and_left_alone(path: Path) -> None:
    store = SqlStore.sqlite(path)
    await store.open()
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.execute("UPDATE schema_compatibility SET least_code = '0998'")
    with pytest.raises(StoreError, match=r"schema 0999.*for schema 0998 or later.*knows up to"):
        await store.open()
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            ("0999",)
        ]


async def test_stores_that_open_an_empty_database_together_migrate_it_once(path: Path) -> None:
    stores = [SqlStore.sqlite(path) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        assert await store.files.page("p", after=None, limit=1) == []
        await store.aclose()


async def test_a_migration_that_fails_leaves_nothing_behind(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE slices (mine TEXT)")  # in the way of the last tables
    store = SqlStore.sqlite(path)
    with pytest.raises(StoreError, match="slices"):
        await store.open()
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert list(definitions(connection)) == ["slices"]


def test_opening_a_database_at_head_does_not_import_alembic(database: Database, path: Path) -> None:
    program = (
        "import asyncio, sys, pathlib\n"
        "from lowtide.store.sql_store import SqlStore\n"
        "async def main():\n"
        "    store = SqlStore.sqlite(pathlib.Path(sys.argv[1]))\n"
        "    await store.open()\n"
        "    await store.aclose()\n"
        "asyncio.run(main())\n"
        "assert 'alembic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=PATIENCE_S)


async def test_open_makes_the_folder(tmp_path: Path) -> None:
    store = SqlStore.sqlite(tmp_path / "new" / "folder with % and ?" / "lowtide.db")
    await store.open()
    await store.aclose()
    assert (tmp_path / "new" / "folder with % and ?" / "lowtide.db").exists()


async def test_a_place_that_is_no_database_is_named_in_the_refusal(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, it is a note to myself" * 50)
    store = SqlStore.sqlite(tmp_path / "text.db")
    with pytest.raises(StoreError, match="not a database"):
        await store.open()
    (tmp_path / "folder.db").mkdir()
    store = SqlStore.sqlite(tmp_path / "folder.db")
    with pytest.raises(StoreError, match=r"cannot open the database .*folder\.db"):
        await store.open()


def test_an_instant_comes_back_exact_and_in_utc() -> None:
    engine = sa.create_engine("sqlite://")
    table = sa.Table("t", sa.MetaData(), sa.Column("at", Instant))
    table.metadata.create_all(engine)
    instants = [
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        None,
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(table), [{"at": at} for at in instants])
        seen = connection.scalars(sa.select(table.c.at)).all()
    engine.dispose()
    assert seen == instants
    assert all(at.tzinfo is UTC for at in seen if at is not None)


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Instant().process_bind_param(
            datetime(2026, 3, 1), sa.create_mock_engine("sqlite://", print).dialect
        )
