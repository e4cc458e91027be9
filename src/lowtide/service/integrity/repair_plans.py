"""A plan that is gone: made again from the input, or replaced in a batch that runs no more.

Called by repair.py and repair_results.py. Invariant: a plan that does not put the very same
requests in the very same chunks never lies under the key of a batch that may still run.
"""

from contextlib import suppress

from lowtide.core.batches.batch import ASSEMBLING
from lowtide.core.batches.plan import RECORD_BYTES, Plan, unpack_entries
from lowtide.core.batches.segment import SegmentFormatError, decode_index
from lowtide.core.execution.records import StoredSlice
from lowtide.core.integrity.consistency import (
    PLAN_LOST,
    Inconsistency,
    LinePlan,
    bits_of_lines,
    is_plan_of,
    plan_of_numbers,
    without_bits,
)
from lowtide.core.validation.planner import Planner
from lowtide.ports.blobs import BlobExists, BlobNotFound, Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.integrity import BatchContents
from lowtide.ports.store import Store
from lowtide.service.batches.assembly import index_place
from lowtide.service.batches.plan_file import plan_file


class PlanRepair:
    """`planner` is the validation's, `line_bytes_max` what its lines may have."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        clock: Clock,
        planner: Planner,
        line_bytes_max: int,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._planner = planner
        self._line_bytes_max = line_bytes_max

    async def mend(self, inconsistency: Inconsistency) -> tuple[str, bool]:
        """`(what was done, whether that is all)`."""
        assert inconsistency.reference is not None
        contents = await self._store.care.batch(inconsistency.reference.owner)
        if contents is None:
            return "its batch is gone", True
        if contents.batch.status == "in_progress":
            data = await self.rebuilt(contents.batch.id)
            if data is not None:
                await self._put(inconsistency, data)
                return f"made again from the input of {contents.batch.id}", True
            now = self._clock.now()
            await self._store.lifecycle.lose_input(contents.batch.id, PLAN_LOST, now)
            contents = await self._store.care.batch(contents.batch.id) or contents
        if contents.is_leased or contents.batch.status not in ASSEMBLING:
            return (
                f"{contents.batch.id} ends with what it has; its last leases must end first",
                False,
            )
        await self._put(inconsistency, await self._replacement(contents))
        return f"replaced, so that {contents.batch.id} can end and list what never ran", True

    async def rebuilt(self, batch_id: str) -> bytes | None:
        """The batch's plan, by validating its input again; None when it comes out otherwise.

        The chunks must agree, and every committed line must be where its bit says: another version
        may put the same lines into another order.
        """
        lines = await self._settled(batch_id)  # before the chunks, so that their bits are all there
        contents = await self._store.care.batch(batch_id)
        plan = None if contents is None else await self._validated(contents)
        if contents is None or plan is None or not is_plan_of(plan, contents.chunks):
            return None
        try:
            agree = all(
                not any(without_bits(bits_of_lines(plan.data, chunk, mine), chunk.done))
                for chunk in contents.chunks
                if (mine := lines.get(chunk.seq))
            )
        except KeyError:
            return None
        return plan.data if agree else None

    async def _validated(self, contents: BatchContents) -> Plan | None:
        # What was accepted then is in the chunks, whatever the settings say now.
        models = {chunk.model: chunk.model for chunk in contents.chunks}
        validator = self._planner.begin_repair(
            contents.batch.endpoint,
            contents.batch.dialect,
            models,
            model_override=contents.batch.model_override,
            wanted=contents.lines,
        )
        try:
            plan = await plan_file(
                validator, self._blobs, contents.input_key, contents.batch.project_id
            )
        except BlobNotFound:
            return None
        return plan if isinstance(plan, Plan) else None

    async def by_line(self, contents: BatchContents) -> bytes | None:
        """A plan in the order of the file; None when the input is gone, or has not as many lines as
        the batch."""
        plan = LinePlan(self._line_bytes_max, contents.lines)
        try:
            async for block in self._blobs.stream(contents.input_key):
                plan.feed(block)
        except BlobNotFound:
            return None
        data = plan.finish()
        return data if len(data) == contents.batch.counts.total * RECORD_BYTES else None

    async def _replacement(self, contents: BatchContents) -> bytes:
        total = contents.batch.counts.total
        by_chunk = await self._settled(contents.batch.id)
        settled = {line for lines in by_chunk.values() for line in lines}
        data = await self.by_line(contents)
        if data is not None and settled <= {entry.line for entry in unpack_entries(data)}:
            return data
        return plan_of_numbers(settled, total)

    async def _settled(self, batch_id: str) -> dict[int, list[int]]:
        """Line numbers of all outcomes that can be read, by chunk."""
        lines: dict[int, list[int]] = {}
        after = -1
        while page := await self._store.results.slices(batch_id, after_seq=after):
            for row in page:
                with suppress(BlobNotFound, SegmentFormatError):  # these are taken back
                    lines.setdefault(row.chunk_seq, []).extend(await lines_of(self._blobs, row))
            after = page[-1].seq
        return lines

    async def _put(self, inconsistency: Inconsistency, data: bytes) -> None:
        if inconsistency.problem != "missing":
            await self._blobs.delete(inconsistency.key)
        with suppress(BlobExists):  # somebody mended it a moment before, from the same input
            await self._blobs.put(inconsistency.key, data)


async def lines_of(blobs: Blobs, row: StoredSlice) -> list[int]:
    """The line numbers in a slice. Raises BlobNotFound, SegmentFormatError."""
    index = await blobs.read(row.segment_key, *index_place(row))
    entries = decode_index(index, offset=row.offset, completed=row.completed, failed=row.failed)
    return [entry.line for entry in entries]
