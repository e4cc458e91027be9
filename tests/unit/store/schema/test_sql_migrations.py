"""A database that the first schema has filled is brought to the next version with all it holds.

Those of development versions, from before the first schema, are refused and left alone.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, make_url, text

from lowtide.core.accounts.money import ModelPrices, UnitPrices
from lowtide.core.batches.batch import Counts
from lowtide.core.batches.chunk import ChunkKey
from lowtide.ports.store import StoreError
from lowtide.store.connection.database import Database
from lowtide.store.schema.compatibility import FIRST
from lowtide.store.schema.migrate import MIGRATIONS
from lowtide.store.sql_store import SqlStore
from testkit.next_version import next_version
from testkit.postgres import PostgresServer
from testkit.store_fixture import NOON, TTL_S, StoreFixture, outcomes

NOON_US = int(NOON.timestamp() * 1_000_000)
END_US = NOON_US + 86_400_000_000
FILLED = f"""
INSERT INTO projects VALUES ('proj_2', 'org_default', 'Second', {NOON_US});
INSERT INTO api_keys VALUES ('key_1', 'proj_2', 'k', 'hash', 'sk-...1', '["inference"]', {NOON_US},
    NULL, NULL, NULL);
INSERT INTO files VALUES ('file-1', 'proj_default', 'batch', 'in.jsonl', 'uploaded', 'openai',
    {NOON_US}, NULL, 700, 7, 'ab', 'files/file-1', NULL, NULL, NULL);
INSERT INTO files VALUES ('file-2', 'proj_2', 'batch', 'in.jsonl', 'uploaded', 'openai',
    {NOON_US}, NULL, 100, 1, 'cd', 'files/file-2', NULL, NULL, NULL);
INSERT INTO files VALUES ('file-out-1', 'proj_default', 'batch_output', 'out.jsonl', 'growing',
    'openai', {NOON_US}, NULL, 0, 0, '', '', 'batch_1', NULL, NULL);
INSERT INTO uploads VALUES ('upload_1', 'proj_2', 'file-3', 'batch', 'in.jsonl', 9, 1, '', 0,
    'pending', {NOON_US}, {END_US}, NULL, 0, NULL, '');
INSERT INTO upload_parts VALUES ('part_1', 'upload_1', 1, 9, 'ef', 'parts/part_1', {NOON_US});
INSERT INTO batches (id, organization_id, project_id, user_id, dialect, input_file_id, input_bytes,
    input_key, endpoint, status, completion_window_s, metadata, priority, created_at, expires_at,
    in_progress_at, first_settled_at, total, completed, failed, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, errors, errors_total, output_file_id, plan_key, model, digest,
    results_seq, task_token, answered_at, unreported, warnings)
    VALUES ('batch_1', 'org_default', 'proj_default', 'u1', 'openai', 'file-1', 700, 'files/file-1',
    '/v1/chat/completions', 'in_progress', 86400, '{{"night":"first"}}', 3, {NOON_US}, {END_US},
    {NOON_US}, {NOON_US}, 7, 2, 0, 20, 8, 10, 4, '[]', 0, 'file-out-1', 'plans/batch_1', 'm',
    'digest-1', 1, 1, {NOON_US}, 0, '[]');
INSERT INTO batch_models VALUES ('batch_1', 'm', 7, 700, 200, 2, 0, 20, 8, 10, 4, 900, 0);
INSERT INTO chunks VALUES ('batch_1', 0, 'org_default', 'leased', 'm', 3, {END_US}, {NOON_US}, 0, 4,
    400, 200, x'03000000000000000000000000000000', 2, 'w0', 1, {NOON_US} + 30000000, 500);
INSERT INTO chunks VALUES ('batch_1', 1, 'org_default', 'waiting', 'm', 3, {END_US}, {NOON_US}, 4,
    3, 300, 150, x'00000000000000000000000000000000', 0, NULL, 0, NULL, 400);
INSERT INTO slices VALUES ('batch_1', 0, 0, 'segments/s0', 0, 40, 0, 2, 0, 0, 0);
INSERT INTO garbage VALUES ('files/old', {NOON_US});
INSERT INTO ledger VALUES ('batch_1', 'm', 0, 'org_default', 'proj_default', {NOON_US}, 2, 20, 8,
    10, 4, 3, 2, 1, 3, 2, 1, '0', 64, 0);
INSERT INTO spend VALUES ('org_default', '2026-03', '64');
INSERT INTO token_models VALUES ('m', x'00', {NOON_US});
INSERT INTO virtual_times VALUES ('m', 'org_default', 1.5);
INSERT INTO urgent_batches VALUES ('m', 'batch_1', 0);
INSERT INTO throughputs VALUES ('m', {NOON_US}, 1, 1, 1, 1, {NOON_US}, 1, 1);
INSERT INTO forecast_hours VALUES ('m', 5, 1, 2, 3);
INSERT INTO workers VALUES ('w0', 4, 30000, '["r"]', {NOON_US});
INSERT INTO worker_reports VALUES ('w0', {NOON_US}, '{{}}');
INSERT INTO replicas VALUES ('r', 'w0', 1, {NOON_US});
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


def upgrade(connection: Connection, revision: str = FIRST) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def execute(url: str, *statements: str) -> None:
    database = Database(url)
    async with database.write() as conn:
        for statement in statements:
            await conn.exec_driver_sql(statement)
    await database.aclose()


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
    """A database as the first schema leaves it: a batch half done, its worker gone."""
    database = Database(empty)
    async with database.write() as conn:
        await conn.run_sync(upgrade)
        code = f"INSERT INTO schema_compatibility VALUES ('{FIRST}')"
        await conn.exec_driver_sql(code)
    await database.aclose()
    words = FILLED
    if database.is_postgres:
        words = re.sub(r"x'([0-9]+)'", r"'\\x\1'", words)
    await execute(empty, *words.strip().rstrip(";").split(";\n"))
    return empty


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[None]:
    """This process is the next version."""
    with next_version(tmp_path / "next"):
        yield


async def test_no_row_is_lost_on_the_way_to_the_next_version(filled: str, upgraded: None) -> None:
    before = await tables(filled)
    assert all(before.values()), "each table of the first schema is tried"
    store = SqlStore(filled)
    await store.open()
    await store.aclose()
    after = await tables(filled)
    assert {name: after[name] for name in before} == before
    assert "regions" in after and not any(after[name] for name in after.keys() - before.keys())
    if filled.startswith("sqlite"):
        with closing(sqlite3.connect(make_url(filled).database or "")) as db:
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_batch_begun_under_the_first_schema_runs_on_and_is_charged(
    filled: str, upgraded: None
) -> None:
    store = SqlStore(filled)
    await store.open()
    world = StoreFixture(store)
    prices = UnitPrices(3, 2, 1)
    world.prices = {"m": ModelPrices(live=prices, batch=prices)}
    batch = await store.batches.get("proj_default", "batch_1")
    assert batch is not None
    counts = Counts(7, 2, 0)
    assert (batch.counts, batch.metadata, batch.priority) == (counts, {"night": "first"}, 3)
    assert (batch.holds, batch.created_at) == ((), NOON)
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
    assert (await store.tenants.storage_use("org_default")).bytes == 700 + 100 + 700 + 9
    assert await store.tenants.batches_created_since("org_default", NOON) == 1
    await store.aclose()


async def test_a_batch_that_is_held_at_the_upgrade_is_so_since_its_last_pause(
    filled: str,
) -> None:
    database = Database(filled)
    async with database.write() as conn:
        await conn.run_sync(upgrade, "0024")
    await database.aclose()
    note = "INSERT INTO batch_notes VALUES ('batch_1', {}, '{}', 'user', '')"
    paused = [NOON_US + 1_000_000, NOON_US + 3_000_000]
    await execute(
        filled,
        "UPDATE batches SET paused_reason = 'user'",
        *(note.format(at, "paused") for at in paused),
        note.format(NOON_US + 2_000_000, "resumed"),
        note.format(NOON_US + 4_000_000, "changed"),
    )
    store = SqlStore(filled)
    await store.open()
    batch = await store.batches.get("proj_default", "batch_1")
    assert batch is not None
    assert (batch.holds, batch.held_at) == (("user",), NOON + timedelta(seconds=3))
    await store.aclose()


@pytest.mark.parametrize("version", ["0001", "0012"])
async def test_a_database_of_a_development_version_is_refused_and_left_alone(
    empty: str, version: str
) -> None:
    await execute(
        empty,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)",
        f"INSERT INTO alembic_version VALUES ('{version}')",
        "CREATE TABLE paces (model VARCHAR)",
    )
    store = SqlStore(empty)
    with pytest.raises(StoreError, match=f"schema {version}, of a dev.*Begin with an empty one"):
        await store.open()
    await store.aclose()
    assert await tables(empty) == {"paces": 0}
