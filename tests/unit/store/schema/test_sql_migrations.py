"""A database that an earlier schema has filled is brought to head with all that it holds."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, make_url, text

from lowtide.core.accounts.money import ModelPrices, UnitPrices
from lowtide.core.batches.batch import Counts
from lowtide.core.batches.chunk import ChunkKey
from lowtide.store.connection.database import Database
from lowtide.store.schema.migrate import MIGRATIONS
from lowtide.store.sql_store import SqlStore
from testkit.postgres import PostgresServer
from testkit.store_fixture import NOON, TTL_S, StoreFixture, outcomes

NOON_US = int(NOON.timestamp() * 1_000_000)
FILLED_BY_0001 = f"""
INSERT INTO files VALUES ('file-1', 'proj_default', 'batch', 'in.jsonl', 'uploaded', 'openai',
    {NOON_US}, NULL, 700, 7, 'ab', 'files/file-1', NULL, NULL);
INSERT INTO files VALUES ('file-2', 'proj_of_old', 'batch', 'in.jsonl', 'uploaded', 'openai',
    {NOON_US}, NULL, 100, 1, 'cd', 'files/file-2', NULL, NULL);
INSERT INTO files VALUES ('file-out-1', 'proj_default', 'batch_output', 'out.jsonl', 'growing',
    'openai', {NOON_US}, NULL, 0, 0, '', '', 'batch_1', NULL);
INSERT INTO batches VALUES ('batch_1', 'proj_default', 'u1', 'openai', 'file-1', 700,
    'files/file-1', '/v1/chat/completions', 'in_progress', 86400, '{{"night":"first"}}', 3, NULL,
    {NOON_US}, {NOON_US} + 86400000000, {NOON_US}, NULL, NULL, NULL, NULL, NULL, NULL, {NOON_US},
    NULL, 7, 2, 0, 20, 8, 10, 4, '[]', 0, 'file-out-1', NULL, 'plans/batch_1', 'm', 'digest-1', 1,
    1, NULL, 1, NULL, NULL);
INSERT INTO batch_models VALUES ('batch_1', 'm', 7, 700, 200, 2, 0, 20, 8, 10, 4);
INSERT INTO chunks VALUES ('batch_1', 0, 'leased', 'm', 3, {NOON_US} + 86400000000, {NOON_US}, 0, 4,
    400, 200, x'03000000000000000000000000000000', 2, 'w0', 1, {NOON_US} + 30000000);
INSERT INTO chunks VALUES ('batch_1', 1, 'waiting', 'm', 3, {NOON_US} + 86400000000, {NOON_US}, 4,
    3, 300, 150, x'00000000000000000000000000000000', 0, NULL, 0, NULL);
INSERT INTO slices VALUES ('batch_1', 0, 0, 'segments/s0', 0, 40, 0, 2, 0, 0, 0);
INSERT INTO garbage VALUES ('files/old', {NOON_US});
"""


async def tables(url: str) -> dict[str, int]:
    """Rows of each table but Alembic's."""
    database = Database(url)
    async with database.read() as conn:
        names = await conn.run_sync(lambda sync: inspect(sync).get_table_names())
        counts = {
            name: await conn.scalar(text(f"SELECT count(*) FROM {name}"))
            for name in names
            if name != "alembic_version"
        }
    await database.aclose()
    return counts


def upgrade_to_0001(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without a table."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as name:
        yield server.url(name)


@pytest.fixture
async def filled(empty: str) -> str:
    """A database as schema 0001 leaves it: a batch half done, its worker gone."""
    database = Database(empty)
    words = FILLED_BY_0001
    if database.is_postgres:
        words = re.sub(r"x'([0-9]+)'", r"'\\x\1'", words).replace(
            "'digest-1', 1,", "'digest-1', true,"
        )
    async with database.write() as conn:
        await conn.run_sync(upgrade_to_0001)
        for statement in words.strip().rstrip(";").split(";\n"):
            await conn.exec_driver_sql(statement)
    await database.aclose()
    return empty


async def test_no_row_is_lost_on_the_way_to_head(filled: str) -> None:
    before = await tables(filled)
    assert all(before.values()), "each table of 0001 is tried"
    store = SqlStore(filled)
    await store.open()
    await store.aclose()
    after = await tables(filled)
    assert {name: after[name] for name in before} == before
    assert (after["organizations"], after["projects"]) == (1, 2)
    if filled.startswith("sqlite"):
        with closing(sqlite3.connect(make_url(filled).database or "")) as db:
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_batch_begun_under_0001_runs_on_and_is_charged_from_there(filled: str) -> None:
    store = SqlStore(filled)
    await store.open()
    world = StoreFixture(store)
    prices = UnitPrices(3, 2, 1)
    world.prices = {"m": ModelPrices(live=prices, batch=prices)}
    batch = await store.batches.get("proj_default", "batch_1")
    assert batch is not None
    assert (batch.counts, batch.metadata, batch.priority) == (
        Counts(7, 2, 0),
        {"night": "first"},
        3,
    )
    assert (batch.paused_reason, batch.created_at) == (None, NOON)
    assert await store.ledger.cost(["batch_1"]) == {}
    world.pass_time(TTL_S)
    assert await store.work.reap(world.now) == 1
    first, second = await world.claim()
    assert (first.key, first.done[0]) == (ChunkKey("batch_1", 0), 0b11)
    receipt = await world.commit(outcomes(first, [2, 3]), outcomes(second))
    assert receipt.settled == {"batch_1"}
    ended = await world.assemble(batch)
    assert (ended.status, ended.counts) == ("completed", Counts(7, 7, 0))
    cost = (await store.ledger.cost(["batch_1"]))["batch_1"]
    assert (cost.requests, cost.charge_pico) == (5, 5 * (6 * 3 + 4 * 2 + 5 * 1))
    assert (await store.tenants.storage_use("org_default")).bytes == 700 + 100 + 700
    assert await store.tenants.batches_created_since("org_default", NOON) == 1
    await store.aclose()


async def test_projects_that_were_in_use_belong_to_the_default_organization(filled: str) -> None:
    store = SqlStore(filled)
    await store.open()
    projects = {p.id: (p.organization_id, p.name) for p in await store.tenants.projects()}
    assert projects == {
        "proj_default": ("org_default", "Default"),
        "proj_of_old": ("org_default", "proj_of_old"),
    }
    found = await store.files.get("proj_of_old", "file-2")
    assert found is not None
    assert found.bytes == 100
    await store.aclose()
