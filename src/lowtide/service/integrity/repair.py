"""Repairs each kind of drift that checker.py finds.

Called by `lowtide doctor --repair`, one drift at a time. Safe beside running servers: rows change
only through the ports, whose transactions are fenced, and blobs are only made under keys that a row
names and that are free. Invariants: repairing again what was repaired does nothing; a request ends
once and is charged once; nothing that could still be delivered is given up.
"""

from collections.abc import AsyncGenerator
from typing import assert_never

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import INPUT_LOST
from lowtide.core.integrity.consistency import RESULT_FILE_LOST, Inconsistency, Reference
from lowtide.core.validation.planner import Planner
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.service.integrity.checker import NEEDS, ConsistencyChecker, size_or_none
from lowtide.service.integrity.repair_plans import PlanRepair
from lowtide.service.integrity.repair_results import ResultRepair


class RepairResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about a drift. `is_done` False: it has to be tried again later."""

    inconsistency: Inconsistency
    did: str
    is_done: bool = True


class Repairer:
    """The repairs, over the same store and blobs as the server's."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        clock: Clock,
        planner: Planner,
        line_bytes_max: int = limits.LINE_BYTES_MAX,
    ) -> None:
        """`planner` is the server's."""
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._plans = PlanRepair(store, blobs, clock, planner, line_bytes_max)
        self._results = ResultRepair(store, blobs, clock, self._plans)

    async def mend_all(
        self, care: ConsistencyChecker, *, deep: bool = False
    ) -> AsyncGenerator[RepairResult]:
        """Looks at everything again and repairs what it finds, in the necessary order."""
        for need in NEEDS:
            async for inconsistency in care.check_role(need, deep=deep):
                yield await self.mend(inconsistency)
        async for inconsistency in care.orphans():
            yield await self.mend(inconsistency)

    async def mend(self, inconsistency: Inconsistency) -> RepairResult:
        """Repairs one inconsistency. Raises StoreError, BlobError."""
        if not await self._stands(inconsistency):
            return RepairResult(
                inconsistency=inconsistency, did="was mended meanwhile, or is not needed any more"
            )
        did, is_done = await self._mend(inconsistency)
        return RepairResult(inconsistency=inconsistency, did=did, is_done=is_done)

    async def _mend(self, inconsistency: Inconsistency) -> tuple[str, bool]:
        reference = inconsistency.reference
        if reference is None:
            await self._blobs.delete(inconsistency.key)
            return "deleted", True
        match reference.need:
            case "input":
                return await self._end_readers(reference.key), True
            case "upload":
                return await self._lose_upload(reference), True
            case "plan":
                return await self._plans.mend(inconsistency)
            case "segment":
                return await self._results.mend_segment(reference.key)
            case "result":
                return await self._results.mend_file(reference), True
            case _:
                assert_never(reference.need)

    async def _stands(self, inconsistency: Inconsistency) -> bool:
        reference = inconsistency.reference
        if reference is None:
            return inconsistency.key not in await self._store.results.known([inconsistency.key])
        if not await self._store.care.is_needed(reference):
            return False
        size = await size_or_none(self._blobs, inconsistency.key)
        return size is None or inconsistency.problem == "content" or not reference.fits(size)

    async def _end_readers(self, input_key: str) -> str:
        """Ends batches that cannot go on, with what they have."""
        readers = await self._store.care.readers(input_key)
        for batch_id in readers:
            await self._store.lifecycle.lose_input(batch_id, INPUT_LOST, self._clock.now())
        return f"ended with what they have: {', '.join(readers) or 'none'}"

    async def _lose_upload(self, file: Reference) -> str:
        readers = await self._store.care.readers(file.key)
        did = "marked as lost"
        if readers:
            did += f"; {await self._end_readers(file.key)}"
        await self._store.care.lose_file(file.owner, file.key, RESULT_FILE_LOST)
        return did
