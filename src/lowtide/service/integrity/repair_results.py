"""Results that are gone: segments are taken back and run again, result files assembled again.

Called by repair.py. Invariant: what is taken back is exactly what cannot be read any more; a
result file is only replaced by one with the same digest.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress

from lowtide import limits
from lowtide.core.accounts.money import dollars_text
from lowtide.core.batches.batch import output_file_id
from lowtide.core.batches.merge import ResultKind
from lowtide.core.batches.segment import SegmentFormatError
from lowtide.core.execution.records import StoredSlice
from lowtide.core.integrity.consistency import (
    PLAN_LOST,
    RESULT_FILE_LOST,
    Reference,
    bits_of_lines,
    without_bits,
)
from lowtide.ports.blobs import BlobExists, BlobNotFound, Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.integrity import BatchContents, RevertedResults
from lowtide.ports.store import OutputInfo, Store
from lowtide.service.batches.assembly import Assembly, index_place
from lowtide.service.integrity.checker import size_or_none
from lowtide.service.integrity.repair_plans import PlanRepair, lines_of

MENDED = "-mended"
"""Ends the key of a result file that was assembled again."""


class _Unlike(Exception):
    """Raised when the assembled bytes are not what the file was."""


class ResultRepair:
    """Repairs segments and result files."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock, plans: PlanRepair) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._plans = plans

    async def mend_segment(self, key: str) -> tuple[str, bool]:
        """Takes back the slices in the segment from every batch, with whatever
        else of it is gone.
        """
        reported: list[str] = []
        is_done = True
        for batch_id in await self._store.care.holders(key):
            taken = await self._take_back(batch_id)
            is_done = is_done and taken is not None
            reported.append(f"{batch_id}: {_words(taken)}")
        return "; ".join(reported) or "no unfinished batch needs it", is_done

    async def _take_back(self, batch_id: str) -> RevertedResults | None:
        """None when commits came between each time."""
        for _ in range(limits.REPAIR_TRIES_MAX):
            contents = await self._store.care.batch(batch_id)
            if contents is None or contents.batch.ended_at is not None:
                return RevertedResults(0, 0, False)
            slices = await self._slices(batch_id)
            lost = await self._lost_segments(slices)
            if not lost:
                return RevertedResults(0, 0, False)
            taken = await self._store.care.lose_results(
                batch_id,
                lost,
                await self._bits(contents, slices, lost),
                self._clock.now(),
                PLAN_LOST,
            )
            if taken is not None:
                return taken
        return None

    async def _slices(self, batch_id: str) -> list[StoredSlice]:
        slices: list[StoredSlice] = []
        after = -1
        while page := await self._store.results.slices(batch_id, after_seq=after):
            slices += page
            after = page[-1].seq
        return slices

    async def _lost_segments(self, slices: Sequence[StoredSlice]) -> frozenset[str]:
        """Segments that are gone, or end before the batch's last slice in them does."""
        ends: dict[str, int] = defaultdict(int)
        for row in slices:
            ends[row.segment_key] = max(ends[row.segment_key], sum(index_place(row)))
        lost = set()
        for key, end in ends.items():
            size = await size_or_none(self._blobs, key)
            if size is None or size < end:
                lost.add(key)
        return frozenset(lost)

    async def _bits(
        self, contents: BatchContents, slices: Sequence[StoredSlice], lost: Collection[str]
    ) -> dict[int, bytes] | None:
        """The bits of the lost slices by chunk: those set, without those of the slices that are
        left. None when there is no plan to tell a line's place by.
        """
        plan = await self._plan(contents)
        if plan is None:
            return None
        touched = {row.chunk_seq for row in slices if row.segment_key in lost}
        left: dict[int, list[int]] = defaultdict(list)
        try:
            for row in slices:
                if row.chunk_seq in touched and row.segment_key not in lost:
                    left[row.chunk_seq] += await lines_of(self._blobs, row)
            return {
                chunk.seq: without_bits(chunk.done, bits_of_lines(plan, chunk, left[chunk.seq]))
                for chunk in contents.chunks
                if chunk.seq in touched
            }
        except (KeyError, SegmentFormatError):
            return None  # the plan is not the one that these chunks ran by

    async def _plan(self, contents: BatchContents) -> bytes | None:
        if contents.batch.plan_key is None:
            return None
        try:
            return await self._blobs.read(contents.batch.plan_key)
        except BlobNotFound:
            return await self._plans.rebuilt(contents.batch.id)

    async def mend_file(self, file: Reference) -> str:
        """Assembles the file again; where that cannot be, marks it as lost."""
        row = await self._store.files.by_id(file.owner)
        batch_id = row.batch_id if row is not None else None
        contents = await self._store.care.batch(batch_id) if batch_id is not None else None
        if contents is not None and await self._assemble_again(contents, file):
            return f"assembled again from the segments of {contents.batch.id}"
        await self._store.care.lose_file(file.owner, file.key, RESULT_FILE_LOST)
        return f"marked as lost, with its batch {batch_id}: its segments are gone, too"

    async def _assemble_again(self, contents: BatchContents, file: Reference) -> bool:
        kind: ResultKind = "output" if file.owner == output_file_id(contents.batch.id) else "errors"
        job = Assembly(self._store.results, self._blobs, contents.batch, contents.input_key)
        key = f"{file.key.removesuffix(MENDED)}{MENDED}"
        if key == file.key:
            key += MENDED
        try:
            await job.load()
            if kind == "errors" and job.settled < contents.batch.counts.total:
                job.add_unexecuted(await self._plan_of_ended(contents))
            if job.count(kind) != file.lines:
                return False
            await job.write(kind, key, _nobody_to_ask, lambda info: _check(info, file))
        except (BlobNotFound, SegmentFormatError, _Unlike):
            return False
        except BlobExists:
            pass  # an earlier repair checked it, and ended before it could say so
        return await self._store.care.move_file(file.owner, file.key, key)

    async def _plan_of_ended(self, contents: BatchContents) -> bytes:
        """What never ran, in a batch whose plan was swept at its end. Raises BlobNotFound."""
        if contents.batch.plan_key is not None:
            with suppress(BlobNotFound):
                return await self._blobs.read(contents.batch.plan_key)
        data = await self._plans.by_line(contents)
        if data is None:
            raise BlobNotFound(f"the input of {contents.batch.id} is gone")
        return data


def _words(taken: RevertedResults | None) -> str:
    if taken is None:
        return "its workers were faster each time; try again"
    if not taken.requests:
        return "nothing of it was lost"
    what = f"{taken.requests} results taken back, with ${dollars_text(taken.charge_pico)}"
    return f"{what}; they run again" if taken.runs_again else f"{what}; they are listed as not run"


def _check(info: OutputInfo, file: Reference) -> None:
    if (info.sha256, info.bytes) != (file.sha256, file.bytes):
        raise _Unlike(file.key)


async def _nobody_to_ask() -> bool:
    return True
