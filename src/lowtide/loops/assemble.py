"""Aggregation: committed segments to one output and one error file, in input order.

Claims a batch that is settled, expired or cancelled and has no leased chunk left. Reads the index
of every slice, merges (core/merge.py), and streams the lines out in runs of bounded size;
requests that never ran are written to the error file as `batch_expired` or `batch_cancelled`. The
committed slices do not change any more, so assembling twice gives the same bytes: a crash in
between costs only time.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import groupby

import structlog

from lowtide import limits
from lowtide.core.batch import Batch, error_file_id, output_file_id
from lowtide.core.line import LineFormatError, UnexecutedCode, read_request, render_unexecuted
from lowtide.core.merge import INPUT, Merge, ResultKind, Run
from lowtide.core.segment import INDEX_RECORD_BYTES
from lowtide.loops.attempt import output_line_id
from lowtide.loops.tasks import TaskRenewal, let_go
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import LifecycleStore, OutputInfo, ResultStore, SliceRow, TaskLease

log = structlog.get_logger(__name__)

_SLICES_PER_PAGE = 500


class AssembleLoop:
    """Takes one batch at a time."""

    name = "assemble"

    def __init__(
        self,
        worker_id: str,
        store: LifecycleStore,
        results: ResultStore,
        blobs: Blobs,
        clock: Clock,
        *,
        lease_ttl_s: float = limits.LEASE_TTL_S,
    ) -> None:
        self._worker_id = worker_id
        self._store = store
        self._results = results
        self._blobs = blobs
        self._clock = clock
        self._lease_ttl_s = lease_ttl_s

    async def tick(self, now: datetime) -> datetime | None:
        lease = await self._store.claim_assembly(self._worker_id, now, self._lease_ttl_s)
        if lease is None:
            return now + timedelta(seconds=limits.IDLE_POLL_S)
        try:
            await self._assemble(lease)
        except BaseException as error:
            await asyncio.shield(let_go(self._store, lease, self._clock, error))
            raise
        return now

    async def _assemble(self, lease: TaskLease) -> None:
        job = _Assembly(self._results, self._blobs, lease)
        await job.load()
        renewal = TaskRenewal(self._store, lease, self._clock, self._lease_ttl_s)
        output = await job.write("output", output_file_id(lease.batch.id), renewal)
        errors = await job.write("errors", error_file_id(lease.batch.id), renewal)
        done = await self._store.finish(lease, output=output, errors=errors, now=self._clock.now())
        log.info(
            "batch.assembled" if done else "assembly.given_up",
            batch=lease.batch.id,
            completed=output.lines if output else 0,
            failed=errors.lines if errors else 0,
        )


class _Assembly:
    """One batch on its way to its result files."""

    def __init__(self, results: ResultStore, blobs: Blobs, lease: TaskLease) -> None:
        self._results = results
        self._blobs = blobs
        self._lease = lease
        self._merge = Merge()
        self._segments: list[str] = []
        self._numbers: dict[str, int] = {}

    async def load(self) -> None:
        """Read all indices, and the plan where not every request has an outcome."""
        batch = self._lease.batch
        after = -1
        while page := await self._results.slices(batch.id, after_seq=after, limit=_SLICES_PER_PAGE):
            for key, rows in groupby(page, key=lambda row: row.segment_key):
                await self._load_indices(key, list(rows))
            after = page[-1].seq
        if batch.plan_key is not None and batch.counts.settled < batch.counts.total:
            self._merge.add_unexecuted(await self._blobs.read(batch.plan_key))
        if self._merge.count("output") and self._merge.doubled:
            log.error("results.doubled", batch=batch.id, lines=self._merge.doubled)

    async def write(
        self, kind: ResultKind, file_id: str, renewal: TaskRenewal
    ) -> OutputInfo | None:
        """Stream one result file into the object store; None when it would be empty."""
        lines = self._merge.count(kind)
        if not lines:
            return None
        digest, size = sha256(), 0
        key = f"results/{file_id}-{self._lease.token}"
        async with self._blobs.write(key) as writer:
            for run in self._merge.runs(kind, limits.ASSEMBLE_RUN_BYTES):
                async for data in self._lines(run):
                    digest.update(data)
                    size += len(data)
                    await writer.write(data)
                await renewal.still_ours()  # finish() checks; here it only keeps the lease
        return OutputInfo(bytes=size, lines=lines, sha256=digest.hexdigest(), blob_key=key)

    async def _load_indices(self, segment_key: str, rows: list[SliceRow]) -> None:
        number = self._numbers.setdefault(segment_key, len(self._segments))
        if number == len(self._segments):
            self._segments.append(segment_key)
        indices = await self._blobs.read_ranges(
            segment_key,
            [
                (
                    row.offset + row.ok_bytes + row.failed_bytes,
                    (row.completed + row.failed) * INDEX_RECORD_BYTES,
                )
                for row in rows
            ],
        )
        for row, index in zip(rows, indices, strict=True):
            self._merge.add_slice(
                number, row.offset, index, completed=row.completed, failed=row.failed
            )

    async def _lines(self, run: Run) -> AsyncIterator[bytes]:
        """The run's output lines, in order; each source is read once."""
        found: dict[int, list[bytes]] = {}
        for source in {place[1] for place in run.places}:
            key = self._lease.input_key if source == INPUT else self._segments[source]
            ranges = [(offset, length) for _, s, offset, length in run.places if s == source]
            found[source] = (await self._blobs.read_ranges(key, ranges))[::-1]
        for line, source, _, _ in run.places:
            data = found[source].pop()
            yield _unexecuted(self._lease.batch, line, data) if source == INPUT else data


def _unexecuted(batch: Batch, line: int, data: bytes) -> bytes:
    """The error line of a request that never ran."""
    code: UnexecutedCode = "batch_cancelled" if batch.status == "cancelling" else "batch_expired"
    try:
        custom_id = read_request(data).custom_id
    except LineFormatError:
        custom_id = ""
    return render_unexecuted(batch.dialect, output_line_id(batch.id, line), custom_id, code)
