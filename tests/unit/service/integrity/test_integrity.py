"""service/integrity/checker.py and repair.py: drift is found, and mended so that each line ends
once."""

import json
import os
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from lowtide import limits
from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.config import LimitSettings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.accounts.money import model_prices
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import done_count, missing
from lowtide.core.batches.plan import Plan
from lowtide.core.validation.planner import Planner
from lowtide.loops.batches.assemble import AssembleLoop
from lowtide.service.integrity.checker import ConsistencyChecker
from lowtide.service.integrity.repair import Repairer, RepairResult
from lowtide.store.sql_store import SqlStore
from testkit.empty_database import place_empty_database
from testkit.manual_clock import ManualClock
from testkit.manual_worker import USAGE, ManualWorker

MODEL = "test-model"
PRICES = {MODEL: model_prices(Decimal(1), Decimal(1), Decimal(2), Decimal("0.5"))}
PER_REQUEST_PICO = PRICES[MODEL].batch.charge(USAGE)


PLANNER = Planner(Catalogue([ModelEntry(id=MODEL)]), LimitSettings)


class Ward:
    """A store and its blobs, and hands to break and to mend them."""

    def __init__(self, store: SqlStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.blobs = FolderBlobs(folder)
        self.clock = ManualClock()
        self.hand = ManualWorker(store, self.blobs, self.clock, prices=PRICES)

    async def batch(self, requests: int = 4) -> Batch:
        """In progress, planned as the validate loop does it."""
        file = await self.hand.upload(requests)
        batch = await self.hand.submit(file, f"batch_{file.id}")
        await self._plan()
        return await self.see(batch)

    async def _plan(self) -> None:
        lease = await self.store.lifecycle.claim_validation("v", self.clock.now(), 60)
        assert lease is not None
        content = await self.blobs.read(lease.input_key)
        plan = PLANNER.plan(content, "/v1/chat/completions", "openai")
        assert isinstance(plan, Plan)
        key = f"plans/{lease.batch.id}-{lease.token}"
        await self.blobs.put(key, plan.data)
        assert await self.store.lifecycle.commit_plan(
            lease,
            plan_key=key,
            chunks=plan.chunks,
            models=plan.models,
            enqueued_tokens_max=10**9,
            now=self.clock.now(),
        )

    async def see(self, batch: Batch) -> Batch:
        found = await self.store.batches.get(batch.project_id, batch.id)
        assert found is not None
        return found

    def lose(self, key: str) -> None:
        (self.folder / key).unlink()

    def damage(self, key: str) -> None:
        """The same size, another byte."""
        data = bytearray((self.folder / key).read_bytes())
        data[0] ^= 1
        (self.folder / key).write_bytes(data)

    def age(self, key: str, seconds: float) -> None:
        at = (self.folder / key).stat().st_mtime - seconds
        os.utime(self.folder / key, (at, at))

    async def found(self, *, deep: bool = False) -> list[str]:
        return [
            each.kind
            async for each in ConsistencyChecker(self.store, self.blobs).check_all(deep=deep)
        ]

    async def mend(self, *, deep: bool = False) -> list[RepairResult]:
        mending = Repairer(self.store, self.blobs, self.clock, PLANNER)
        care = ConsistencyChecker(self.store, self.blobs)
        return [mended async for mended in mending.mend_all(care, deep=deep)]

    async def go_on(self, batch: Batch) -> None:
        """What is left is run, in one beat."""
        await self.hand.let_go(batch.id)
        await self.store.work.reap(self.clock.now() + timedelta(days=1))
        await self.hand.lease(batch.id)
        left = [
            line
            for chunk in self.hand._leases[batch.id]
            for line in (chunk.first + index + 1 for index in missing(chunk.done, chunk.count))
        ]
        await self.hand.settle(batch.id, ok=left)

    async def assemble(self) -> None:
        lifecycle, results = self.store.lifecycle, self.store.results
        await AssembleLoop("a", lifecycle, results, self.blobs, self.clock).tick(self.clock.now())

    async def lines(self, file_id: str | None) -> list[tuple[str, str]]:
        """(custom_id, line number) of each line of a result file."""
        file = await self.store.files.by_id(file_id) if file_id else None
        if file is None:
            return []
        data = await self.blobs.read(file.blob_key)
        lines = [json.loads(line) for line in data.splitlines()]
        return [(line["custom_id"], re.split("[_-]", line["id"])[-1]) for line in lines]

    async def charged(self, batch: Batch) -> int:
        entries = await self.store.ledger.entries(batch.id)
        assert batch.usage.total_tokens == sum(entry.usage.total_tokens for entry in entries)
        return sum(entry.charge_pico for entry in entries)


@pytest.fixture
async def ward(tmp_path: Path) -> AsyncIterator[Ward]:
    place_empty_database(tmp_path / "lowtide.db")
    store = SqlStore.sqlite(tmp_path / "lowtide.db")
    await store.open()
    yield Ward(store, tmp_path / "blobs")
    await store.aclose()


async def test_a_whole_installation_has_no_drift_and_nothing_to_mend(ward: Ward) -> None:
    batch = await ward.batch(300)
    await ward.hand.settle(batch.id, ok=range(1, 200), bad=[200])
    done = await ward.batch(3)
    await ward.hand.settle(done.id, ok=[1, 2, 3])
    await ward.assemble()
    care = ConsistencyChecker(ward.store, ward.blobs)
    assert [inconsistency async for inconsistency in care.check_all(deep=True)] == []
    assert (care.checked, care.missing) == (6, 0)
    assert await ward.mend(deep=True) == []


# ---- segments ----


async def test_a_lost_segment_runs_again_and_is_charged_once(ward: Ward) -> None:
    batch = await ward.batch(300)
    await ward.hand.settle(batch.id, ok=[1, 2, 130, 290], bad=[7])
    await ward.hand.settle(batch.id, ok=[3, 131], bad=[4, 299])
    ward.lose("segments/1")
    assert await ward.found() == ["missing segment"]
    (mended,) = await ward.mend()
    assert mended.is_done and "5 results taken back" in mended.did and "run again" in mended.did
    assert await ward.found() == []
    seen = await ward.see(batch)
    assert (seen.counts.completed, seen.counts.failed) == (2, 2)
    await ward.go_on(batch)
    await ward.assemble()
    ended = await ward.see(batch)
    assert (ended.status, ended.counts.completed, ended.counts.failed) == ("completed", 298, 2)
    assert await ward.charged(ended) == 298 * PER_REQUEST_PICO
    output = await ward.lines(ended.output_file_id)
    errors = await ward.lines(ended.error_file_id)
    assert [int(number) for _, number in errors] == [4, 299]
    assert sorted(int(number) for _, number in output + errors) == list(range(1, 301))


async def test_a_segment_lost_before_assembly_sends_the_batch_back_to_work(ward: Ward) -> None:
    batch = await ward.batch(4)
    await ward.hand.settle(batch.id, ok=[1, 2])
    await ward.hand.settle(batch.id, ok=[3], bad=[4])
    assert (await ward.see(batch)).status == "finalizing"
    ward.lose("segments/2")
    await ward.mend()
    assert (await ward.see(batch)).status == "in_progress"
    await ward.go_on(batch)
    await ward.assemble()
    ended = await ward.see(batch)
    assert (ended.status, ended.counts.completed) == ("completed", 4)
    assert await ward.charged(ended) == 4 * PER_REQUEST_PICO


async def test_a_segment_that_was_cut_short_counts_as_lost(ward: Ward) -> None:
    batch = await ward.batch(4)
    await ward.hand.settle(batch.id, ok=[1, 2])
    path = ward.folder / "segments/1"
    path.write_bytes(path.read_bytes()[:-1])
    assert await ward.found() == ["size segment"]
    await ward.mend()
    assert await ward.found() == []
    assert (await ward.see(batch)).counts.settled == 0


async def test_all_segments_of_a_batch_are_taken_back_at_once(ward: Ward) -> None:
    batch = await ward.batch(4)
    await ward.hand.settle(batch.id, ok=[1])
    await ward.hand.settle(batch.id, ok=[2])
    ward.lose("segments/1")
    ward.lose("segments/2")
    assert [mended.did.startswith("batch_") for mended in await ward.mend()] == [True]
    assert (await ward.see(batch)).counts.settled == 0
    care = await ward.store.care.batch(batch.id)
    assert care is not None and [done_count(chunk.done) for chunk in care.chunks] == [0]


async def test_a_cancelled_batch_lists_what_it_lost_as_cancelled(ward: Ward) -> None:
    batch = await ward.batch(4)
    await ward.hand.settle(batch.id, ok=[1, 2])
    await ward.hand.settle(batch.id, ok=[3])
    await ward.hand.let_go(batch.id)
    await ward.store.batches.cancel(batch.project_id, batch.id, ward.clock.now())
    ward.lose("segments/1")
    await ward.mend()
    await ward.assemble()
    ended = await ward.see(batch)
    assert (ended.status, ended.counts.completed, ended.counts.failed) == ("cancelled", 1, 3)
    assert await ward.charged(ended) == PER_REQUEST_PICO


# ---- plans ----


async def test_a_lost_plan_is_made_again_byte_for_byte(ward: Ward) -> None:
    batch = await ward.batch(300)
    await ward.hand.settle(batch.id, ok=[1, 2])
    key = batch.plan_key or ""
    before = await ward.blobs.read(key)
    ward.lose(key)
    assert await ward.found() == ["missing plan"]
    (mended,) = await ward.mend()
    assert "made again" in mended.did
    assert await ward.blobs.read(key) == before


async def test_a_plan_that_comes_out_otherwise_ends_the_batch_cleanly(ward: Ward) -> None:
    """The lines that are committed are not where the new plan has them: never run by it."""
    batch = await ward.batch(4)
    await ward.hand.settle(batch.id, ok=[2, 3])
    await ward.hand.let_go(batch.id)
    lines = (ward.folder / "inputs/in1").read_bytes().splitlines(keepends=True)
    swapped = [lines[0], b"\n", *lines[1:]]  # every line one further
    (ward.folder / "inputs/in1").write_bytes(b"".join(swapped)[:-1])
    ward.lose(batch.plan_key or "")
    (mended,) = await ward.mend()
    assert "replaced" in mended.did
    await ward.assemble()
    ended = await ward.see(batch)
    assert [error.code for error in ended.errors] == ["plan_lost"]
    assert (ended.status, ended.counts.completed, ended.counts.failed) == ("completed", 2, 2)


async def test_without_plan_and_input_the_batch_still_lists_every_line(ward: Ward) -> None:
    batch = await ward.batch(5)
    await ward.hand.settle(batch.id, ok=[2], bad=[4])
    await ward.hand.let_go(batch.id)
    ward.lose(batch.plan_key or "")
    ward.lose("inputs/in1")
    assert await ward.found() == ["missing input", "missing upload", "missing plan"]
    assert all(mended.is_done for mended in await ward.mend())
    await ward.assemble()
    ended = await ward.see(batch)
    assert (ended.status, ended.counts.completed, ended.counts.failed) == ("completed", 1, 4)
    assert [e.code for e in ended.errors] == ["input_lost"]
    never_run = [number for name, number in await ward.lines(ended.error_file_id) if not name]
    assert [number.rpartition("-")[2] for number in never_run] == ["1", "3", "5"]
    assert await ward.found() == []


async def test_a_plan_waits_to_be_replaced_until_the_last_lease_has_ended(ward: Ward) -> None:
    batch = await ward.batch(5)
    await ward.hand.lease(batch.id)
    ward.lose(batch.plan_key or "")
    ward.lose("inputs/in1")
    assert [mended.is_done for mended in await ward.mend()].count(False) >= 1
    await ward.hand.settle(batch.id, ok=[1])
    await ward.hand.let_go(batch.id)
    assert all(mended.is_done for mended in await ward.mend())
    await ward.assemble()
    ended = await ward.see(batch)
    assert (ended.counts.completed, ended.counts.failed) == (1, 4)


# ---- files ----


async def test_a_lost_input_ends_its_batch_and_marks_the_file(ward: Ward) -> None:
    batch = await ward.batch(4)
    await ward.hand.settle(batch.id, ok=[1])
    await ward.hand.let_go(batch.id)
    ward.lose("inputs/in1")
    await ward.mend()
    await ward.assemble()
    ended = await ward.see(batch)
    assert (ended.status, ended.counts.completed, ended.counts.failed) == ("completed", 1, 3)
    file = await ward.store.files.by_id(batch.input_file_id)
    assert file is not None and file.status == "lost"
    assert await ward.found() == []


@pytest.mark.parametrize("how", ["missing", "size", "content"])
@pytest.mark.parametrize("side", ["output", "errors"])
async def test_a_lost_result_file_is_assembled_again(ward: Ward, how: str, side: str) -> None:
    batch = await ward.batch(300)
    await ward.hand.settle(batch.id, ok=range(2, 301), bad=[1])
    await ward.assemble()
    ended = await ward.see(batch)
    file_id = ended.output_file_id if side == "output" else ended.error_file_id
    file = await ward.store.files.by_id(file_id or "")
    assert file is not None
    whole = await ward.blobs.read(file.blob_key)
    if how == "missing":
        ward.lose(file.blob_key)
    elif how == "size":
        (ward.folder / file.blob_key).write_bytes(whole[:-3])
    else:
        ward.damage(file.blob_key)
    assert await ward.found(deep=True) == [f"{how} result"]
    assert await ward.found() == ([] if how == "content" else [f"{how} result"])
    (mended,) = await ward.mend(deep=True)
    assert "assembled again" in mended.did
    found = await ward.store.files.by_id(file_id or "")
    assert found is not None and await ward.blobs.read(found.blob_key) == whole
    assert await ward.found(deep=True) == []


async def test_what_never_ran_is_assembled_again_from_the_input(ward: Ward) -> None:
    """The plan of an ended batch is swept at once."""
    batch = await ward.batch(4)
    await ward.hand.settle(batch.id, ok=[1], bad=[3])
    await ward.hand.let_go(batch.id)
    await ward.store.batches.cancel(batch.project_id, batch.id, ward.clock.now())
    await ward.assemble()
    await ward.store.results.sweep(ward.clock.now(), segments_keep_s=3600)
    ended = await ward.see(batch)
    file = await ward.store.files.by_id(ended.error_file_id or "")
    assert file is not None and file.lines == 3 and ended.plan_key is None
    ward.lose(file.blob_key)
    (mended,) = await ward.mend()
    assert "assembled again" in mended.did


async def test_a_result_file_whose_segments_are_gone_is_marked_as_lost(ward: Ward) -> None:
    batch = await ward.batch(4)
    await ward.hand.settle(batch.id, ok=[1, 2, 3, 4])
    await ward.assemble()
    ended = await ward.see(batch)
    file = await ward.store.files.by_id(ended.output_file_id or "")
    assert file is not None
    ward.lose(file.blob_key)
    ward.lose("segments/1")
    (mended,) = await ward.mend()
    assert "marked as lost" in mended.did
    assert [error.code for error in (await ward.see(batch)).errors] == ["result_file_lost"]
    lost = await ward.store.files.by_id(file.id)
    assert lost is not None and lost.status == "lost"
    assert await ward.found() == []


async def test_a_file_is_mended_a_second_time_and_a_third(ward: Ward) -> None:
    batch = await ward.batch(4)
    await ward.hand.settle(batch.id, ok=[1, 2, 3, 4])
    await ward.assemble()
    ended = await ward.see(batch)
    seen = set()
    for _ in range(3):
        file = await ward.store.files.by_id(ended.output_file_id or "")
        assert file is not None
        seen.add(file.blob_key)
        ward.lose(file.blob_key)
        await ward.mend()
        assert await ward.found() == []
    assert len(seen) == 3


# ---- orphans ----


async def test_old_blobs_that_no_row_knows_are_deleted_and_young_ones_kept(ward: Ward) -> None:
    batch = await ward.batch(2)
    for key in ("segments/old", "segments/young", "results/old", "notes/mine"):
        await ward.blobs.put(key, b"x" * 10)
        if not key.endswith("young"):
            ward.age(key, limits.ORPHAN_AGE_S + 60)
    ward.age(batch.plan_key or "", limits.ORPHAN_AGE_S + 60)
    assert await ward.found() == ["orphan", "orphan"]
    assert {mended.inconsistency.key for mended in await ward.mend()} == {
        "segments/old",
        "results/old",
    }
    left = {info.key async for info in ward.blobs.list("")}
    assert left == {"segments/young", "notes/mine", "inputs/in1", batch.plan_key}


# ---- at any size ----


async def test_pages_are_walked_to_their_end(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INTEGRITY_PAGE", 2)
    for _ in range(5):
        await ward.hand.upload(1)
    for number in (2, 5):
        ward.lose(f"inputs/in{number}")
    care = ConsistencyChecker(ward.store, ward.blobs)
    assert [each.key async for each in care.check_all()] == [
        "inputs/in2",
        "inputs/in5",
    ]
    assert (care.checked, care.missing) == (5, 2)
