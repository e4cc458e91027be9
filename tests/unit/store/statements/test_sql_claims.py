"""The head of the queue is read from an index, whatever is queued; so are the other hot reads."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Select, exists, select, text
from sqlalchemy.dialects import postgresql, sqlite

from lowtide.core.batches.chunk import ChunkKey
from lowtide.store.capacity import unsettled
from lowtide.store.connection.database import Database
from lowtide.store.schema.tables import LEASED, WAITING, batch_models, batches, chunks, slices
from lowtide.store.statements.claims import first_waiting, urgent_waiting
from lowtide.store.statements.fair_share import waiting_organizations
from lowtide.store.statements.group_commit import chunks_by_key

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def query_plan(database: Database, statement: Select[Any]) -> list[str]:
    words = str(
        statement.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
    )
    async with database.read() as conn:
        count = words.count("?")
        rows = await conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", ("x",) * count)
        return [row[3] for row in rows]


def scans(plan: Iterable[str]) -> list[str]:
    return [line for line in plan if line.startswith("SCAN") or "TEMP B-TREE" in line]


async def test_a_claim_of_one_organization_reads_its_part_of_the_queue(database: Database) -> None:
    by_organization = (
        "SEARCH chunks USING INDEX chunks_waiting_by_organization (model=? AND organization_id=?)"
    )
    for _ in range(2):
        plan = await query_plan(database, first_waiting("m", 32, "org"))
        assert plan == [by_organization]
        async with database.write() as conn:
            await conn.execute(text("ANALYZE"))


async def test_finding_organizations_that_wait_takes_a_step_for_each(database: Database) -> None:
    plan = await query_plan(database, waiting_organizations("m"))
    reads = [line for line in plan if "chunks" in line]
    first = "SEARCH chunks USING INDEX chunks_waiting_by_organization (model=?)"
    following = first.replace("(model=?)", "(model=? AND organization_id>?)")
    assert reads == [first, following], plan


async def test_reaping_reads_leased_chunks_alone(database: Database) -> None:
    statement = select(chunks.c.seq).where(
        chunks.c.state == LEASED, chunks.c.lease_expires_at <= NOON
    )
    plan = await query_plan(database, statement)
    assert plan == ["SEARCH chunks USING INDEX chunks_leased (lease_expires_at<?)"]


async def test_the_chunks_of_a_commit_are_found_by_their_keys(database: Database) -> None:
    keys = [ChunkKey(batch, seq) for batch in ("b1", "b2", "b3") for seq in range(9)]
    for some in (keys[:1], keys[:9], keys):
        plan = await query_plan(database, chunks_by_key(some))
        found = [line for line in plan if "chunks" in line]
        assert found, plan
        by_key = "SEARCH chunks USING INDEX sqlite_autoindex_chunks_1 (batch_id=? AND seq=?)"
        assert set(found) == {by_key}, plan


def test_batches_of_one_chunk_share_a_condition() -> None:
    flex = [ChunkKey(f"b{number}", 0) for number in range(400)]
    larger = [ChunkKey("c", 0), ChunkKey("c", 1)]
    words = str(chunks_by_key([*flex, *larger]).whereclause)
    assert words.count(" OR ") == 1


@pytest.mark.parametrize("name", ["postgresql", "sqlite"])
def test_a_claim_skips_locked_chunks_where_rows_are_locked(name: str) -> None:
    dialects = {"postgresql": postgresql.dialect(), "sqlite": sqlite.dialect()}
    words = str(first_waiting("m", 32, "org").compile(dialect=dialects[name]))
    assert ("FOR NO KEY UPDATE SKIP LOCKED" in words) == (name == "postgresql")
    assert "'waiting'" in words, "a partial index needs the word itself, not a parameter"


async def test_pages_and_slices_need_no_sorting(database: Database) -> None:
    newest = (
        select(batches)
        .where(batches.c.project_id == "p")
        .order_by(batches.c.created_at.desc(), batches.c.id.desc())
        .limit(20)
    )
    assert scans(await query_plan(database, newest)) == []
    after = select(slices).where(slices.c.batch_id == "b", slices.c.seq > 5)
    assert scans(await query_plan(database, after.order_by(slices.c.seq))) == []


async def test_finding_models_that_wait_never_scans_the_chunks(database: Database) -> None:
    waiting = exists().where(chunks.c.model == batch_models.c.model, chunks.c.state == WAITING)
    plan = await query_plan(database, select(batch_models.c.model).where(waiting))
    assert any(re.search(r"INDEX chunks_waiting\w* \(model=\?\)", line) for line in plan), plan


async def test_an_urgent_batch_with_nothing_waiting_costs_a_step_of_the_index(
    database: Database,
) -> None:
    for _ in range(2):
        plan = await query_plan(database, urgent_waiting(["m"], 32))
        reads = [line for line in plan if " chunks" in line]
        assert (
            len(reads) == 1
            and "INDEX chunks_waiting_by_organization (model=? AND organiz" in reads[0]
        ), plan
        assert "batch_id=?" in reads[0], plan
        async with database.write() as conn:
            await conn.execute(text("ANALYZE"))


async def test_the_backlog_is_read_without_its_chunks(database: Database) -> None:
    plan = await query_plan(database, unsettled())
    assert any("INDEX batches_status (status=?)" in line for line in plan), plan
    assert not any("chunks" in line for line in plan), plan
