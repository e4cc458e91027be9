"""Reading results while they grow, across the end of the batch, and after their order was swept."""

import json
from typing import Any

import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.config import Settings
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.batches.batch import error_file_id, output_file_id
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.loops.batches.assemble import AssembleLoop
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.batches.batches import BatchService
from lowtide.service.batches.new_batch import NewBatch
from lowtide.service.batches.results import PartialContent, ResultReader
from testkit.manual_worker import ManualWorker

P, U = "proj_default", "user_default"


class Run:
    """One batch, its worker, and a reader of its results."""

    def __init__(
        self, store: Store, blobs: Blobs, clock: SkippingClock, worker: ManualWorker
    ) -> None:
        self.store, self.blobs, self.clock, self.worker = store, blobs, clock, worker
        self.reader = ResultReader(store, blobs, clock)
        allowance = Quotas(store.tenants, store.ledger, clock, Settings().limits)
        self.verbs = BatchService(
            store,
            Catalogue([]),
            clock,
            lambda p: p + "x" * 24,
            allowance,
            lambda _: None,
        )
        self.id = ""

    async def start(self, requests: int, purpose: str = "batch") -> None:
        file = await self.worker.upload(requests, purpose=purpose)
        new = NewBatch(input_file_id=file.id, endpoint="/v1/chat/completions")
        self.id = (await self.verbs.create(P, U, new)).batch.id
        await self.worker.plan()

    async def settle(self, ok: list[int] | range = (), bad: list[int] | range = ()) -> None:  # type: ignore[assignment]
        await self.worker.settle(self.id, ok=ok, bad=bad)

    async def assemble(self) -> None:
        loop = AssembleLoop("a", self.store.lifecycle, self.store.results, self.blobs, self.clock)
        await loop.tick(self.clock.now())

    async def file(self, *, ok: bool = True) -> File:
        file_id = output_file_id(self.id) if ok else error_file_id(self.id)
        file = await self.store.files.get(P, file_id)
        assert file is not None
        return file

    async def open(self, offset: int | None = None, *, ok: bool = True) -> PartialContent:
        return await self.reader.open(P, await self.file(ok=ok), offset)

    async def read(self, offset: int | None = None, *, ok: bool = True) -> tuple[list[int], Any]:
        """Input line numbers of what was read, and the content it came in."""
        content = await self.open(offset, ok=ok)
        return await lines_of(content), content


async def lines_of(content: PartialContent) -> list[int]:
    body = b"".join([block async for block in content.body])
    assert len(body) == content.bytes
    assert not body or body.endswith(b"\n")
    return [int(json.loads(line)["custom_id"][2:]) for line in body.splitlines()]


@pytest.fixture
def run(store: Store, blobs: Blobs, clock: SkippingClock, worker: ManualWorker) -> Run:
    return Run(store, blobs, clock, worker)


async def test_a_growing_file_shows_what_is_committed_in_that_order(run: Run) -> None:
    await run.start(6)
    await run.settle(ok=[3, 1], bad=[5])
    lines, content = await run.read()
    assert lines == [3, 1]
    assert (content.incomplete, content.last_line) == (True, 2)
    await run.settle(ok=[6])
    assert (await run.read())[0] == [3, 1, 6]


@pytest.mark.parametrize("offset", range(6))
async def test_an_offset_skips_that_many_lines_wherever_slices_end(run: Run, offset: int) -> None:
    await run.start(8)
    await run.settle(ok=[3, 1], bad=[2])
    await run.settle(bad=[7])
    await run.settle(ok=[6, 5, 4])
    lines, content = await run.read(offset)
    assert lines == [3, 1, 6, 5, 4][offset:]
    assert content.last_line == 5


async def test_failures_are_read_in_the_same_way(run: Run) -> None:
    await run.start(6)
    await run.settle(ok=[1], bad=[4, 2])
    await run.settle(ok=[3], bad=[6])
    assert (await run.read(ok=False))[0] == [4, 2, 6]
    lines, content = await run.read(1, ok=False)
    assert lines == [2, 6]
    assert (content.incomplete, content.last_line) == (True, 3)


async def test_what_is_committed_after_opening_is_not_in_it(run: Run) -> None:
    await run.start(4)
    await run.settle(ok=[1, 2])
    content = await run.open()
    await run.settle(ok=[3])
    assert await lines_of(content) == [1, 2]


async def test_a_walk_across_the_end_misses_nothing_and_doubles_nothing(run: Run) -> None:
    await run.start(5)
    await run.settle(ok=[4, 2])
    first, content = await run.read()
    await run.settle(ok=[5, 1], bad=[3])
    await run.assemble()
    assert (await run.file()).status == "uploaded"
    second, content = await run.read(content.last_line)
    assert first + second == [4, 2, 5, 1]
    assert (content.incomplete, content.last_line) == (False, 4)
    nothing, content = await run.read(content.last_line)
    assert nothing == []
    assert (content.incomplete, content.bytes) == (False, 0)


async def test_many_chunks_in_one_segment_are_read_in_order(run: Run) -> None:
    await run.start(300)
    await run.settle(ok=range(1, 300, 2))
    await run.settle(ok=range(2, 301, 2))
    odd, even = list(range(1, 300, 2)), list(range(2, 301, 2))
    assert (await run.read())[0] == odd + even
    for offset in (1, 63, 64, 65, 149, 150, 151, 299, 300):
        assert (await run.read(offset))[0] == (odd + even)[offset:]


async def test_blocks_stay_small_however_much_there_is(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAM_BLOCK_BYTES", 2000)
    await run.start(300)
    await run.settle(ok=range(1, 301))
    content = await run.open()
    sizes = [len(block) async for block in content.body]
    assert sum(sizes) == content.bytes > 20_000
    assert max(sizes) <= 2000


async def test_many_slices_are_paged_through(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SLICES_PAGE", 2)
    await run.start(7)
    for line in (7, 3, 1, 6, 2):
        await run.settle(ok=[line])
    assert (await run.read())[0] == [7, 3, 1, 6, 2]
    assert (await run.read(3))[0] == [6, 2]


@pytest.mark.parametrize("purpose", ["batch", "batch-api"])
async def test_lines_that_never_ran_follow_behind_the_failures(run: Run, purpose: str) -> None:
    await run.start(6, purpose)
    await run.settle(ok=[4], bad=[5, 2])
    first, content = await run.read(ok=False)
    await run.verbs.cancel(P, run.id)
    await run.worker.let_go(run.id)
    await run.assemble()
    second, content = await run.read(content.last_line, ok=False)
    assert first + second == [5, 2, 1, 3, 6]
    assert (content.incomplete, content.last_line) == (False, 5)
    assert (await run.read(1, ok=False))[0] == [2, 1, 3, 6]
    assert (await run.read(4, ok=False))[0] == [6]
    assert (await run.read(5, ok=False))[0] == []


async def test_after_the_sweep_only_a_fresh_reader_is_served(run: Run) -> None:
    await run.start(3)
    await run.settle(ok=[3, 1, 2])
    await run.assemble()
    now = run.clock.advance(limits.SEGMENTS_KEEP_S + 1)
    await run.store.results.sweep(now, segments_keep_s=limits.SEGMENTS_KEEP_S)
    lines, content = await run.read(0)
    assert lines == [1, 2, 3]
    assert (content.incomplete, content.last_line) == (False, 3)
    assert (await run.read(3))[0] == []
    with pytest.raises(LowtideError) as caught:
        await run.open(1)
    assert caught.value.code == "offset_expired"
    assert "without offset" in caught.value.message


async def test_the_order_of_commit_is_kept_for_exactly_as_long_as_promised(run: Run) -> None:
    await run.start(3)
    await run.settle(ok=[3, 1, 2])
    await run.assemble()
    run.clock.advance(limits.SEGMENTS_KEEP_S - 1)
    assert (await run.read(1))[0] == [1, 2]
    run.clock.advance(1)  # a sweep may run from now on, even in the middle of a read
    with pytest.raises(LowtideError) as caught:
        await run.open(1)
    assert caught.value.code == "offset_expired"


async def test_slices_swept_early_are_noticed(run: Run) -> None:
    await run.start(3)
    await run.settle(ok=[3, 1, 2])
    await run.assemble()
    await run.store.results.sweep(run.clock.advance(1), segments_keep_s=0)
    assert (await run.read(0))[0] == [1, 2, 3]
    with pytest.raises(LowtideError) as caught:
        await run.open(1)
    assert caught.value.code == "offset_expired"


async def test_failures_swept_early_are_noticed_too(run: Run) -> None:
    await run.start(4)
    await run.settle(bad=[3, 1])
    await run.verbs.cancel(P, run.id)
    await run.worker.let_go(run.id)
    await run.assemble()
    await run.store.results.sweep(run.clock.advance(1), segments_keep_s=0)
    assert (await run.read(0, ok=False))[0] == [1, 2, 3, 4]
    with pytest.raises(LowtideError) as caught:
        await run.open(2, ok=False)
    assert caught.value.code == "offset_expired"


async def test_an_offset_below_zero_or_into_an_upload_is_refused(run: Run) -> None:
    await run.start(1)
    await run.settle(ok=[1])
    upload = await run.worker.upload()
    for file, offset in ((await run.file(), -1), (upload, 0)):
        with pytest.raises(LowtideError) as caught:
            await run.reader.open(P, file, offset)
        assert (caught.value.code, caught.value.param) == ("invalid_request", "offset")
