"""A batch's result files out of its committed slices: merge the indices, stream the lines.

Used by loops/batches/assemble.py, when a batch has ended, and by service/integrity, when a result
file was lost later. Invariant: the bytes follow from slices, plan and input alone, so assembling
again gives the same file.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from hashlib import sha256
from itertools import groupby, islice
from typing import Final

import structlog

from lowtide import limits
from lowtide.core.batches.batch import Batch, Status
from lowtide.core.batches.failures import FailureCount, read_failure
from lowtide.core.batches.line import (
    LineFormatError,
    UnexecutedCode,
    output_line_id,
    read_request,
    render_unexecuted,
)
from lowtide.core.batches.line_sets import FailedLineCollector, pack_lines
from lowtide.core.batches.merge import INPUT, Merge, ResultKind, Run
from lowtide.core.batches.result_index import SUFFIX, IndexWriter
from lowtide.core.batches.segment import INDEX_RECORD_BYTES
from lowtide.core.execution.records import StoredSlice
from lowtide.ports.blobs import BlobNotFound, Blobs
from lowtide.ports.retries import BatchEnd
from lowtide.ports.store import OutputInfo, ResultStore

log = structlog.get_logger(__name__)

_SLICES_PER_PAGE = 500
_LINES_JOINED = 64
_UNEXECUTED: Final[Mapping[Status, UnexecutedCode]] = {
    "cancelling": "batch_cancelled",
    "cancelled": "batch_cancelled",
    "expiring": "batch_expired",
    "expired": "batch_expired",
    # A batch whose requests all settled has none that never ran.
    "finalizing": "input_lost",
    "completed": "input_lost",
}


class Assembly:
    """One batch on its way to its result files."""

    def __init__(self, results: ResultStore, blobs: Blobs, batch: Batch, input_key: str) -> None:
        self._results = results
        self._blobs = blobs
        self._batch = batch
        self._input_key = input_key
        self._merge = Merge()
        self._segments: list[str] = []
        self._numbers: dict[str, int] = {}
        self._failed = FailedLineCollector()
        self._failures = FailureCount()
        self._plan = b""
        self.settled = 0
        """The number of outcomes that were loaded."""

    async def load(self) -> None:
        """Reads the indices of all slices. Raises BlobNotFound where a segment is gone."""
        after = -1
        while page := await self._results.slices(
            self._batch.id, after_seq=after, limit=_SLICES_PER_PAGE
        ):
            for key, rows in groupby(page, key=lambda row: row.segment_key):
                await self._load_indices(key, list(rows))
            after = page[-1].seq

    def use_plan(self, plan: bytes) -> None:
        """Lets the index of a result file tell where its requests lie. To be called before
        `write`."""
        self._plan = plan

    def add_unexecuted(self, plan: bytes) -> None:
        """Adds the requests of the plan that have no outcome to the error file. Call
        it after `load`.
        """
        self._merge.add_unexecuted(plan)

    def count(self, kind: ResultKind) -> int:
        """The number of lines of that file, after all that is to be in it was added."""
        lines = self._merge.count(kind)
        if self._merge.doubled:
            log.error("results.doubled", batch=self._batch.id, lines=self._merge.doubled)
        return lines

    async def write(
        self,
        kind: ResultKind,
        key: str,
        renew_if_due: Callable[[], Awaitable[bool]],
        check: Callable[[OutputInfo], None] = lambda _: None,
    ) -> OutputInfo | None:
        """Streams one result file into the blob `key`; None when it would be empty.

        `renew_if_due` is asked from time to time and keeps the lease. What `check` raises, when it
        sees what was written, leaves no blob.
        """
        lines = self.count(kind)
        if not lines:
            return None
        digest, size, index = sha256(), 0, IndexWriter()
        async with self._blobs.write(key) as writer:
            for run in self._merge.runs(kind, limits.ASSEMBLE_RUN_BYTES):
                by_source = await self._lines(run)
                noted = self._noted(run, by_source) if kind == "errors" else by_source
                for data in _joined(index, run, noted):
                    digest.update(data)
                    size += len(data)
                    await writer.write(data)
                await renew_if_due()  # finish() checks; here it only keeps the lease
            info = OutputInfo(bytes=size, lines=lines, sha256=digest.hexdigest(), blob_key=key)
            check(info)
        await self._blobs.delete(key + SUFFIX)  # of a file that was lost and is made once more
        async with self._blobs.write(key + SUFFIX) as writer:
            await writer.write(index.pack(self._plan))
        return info

    def end(self) -> BatchEnd:
        """What is kept of the lines for retries. After the error file was written."""
        is_retry = self._batch.retry_of is not None
        return BatchEnd(
            failed=self._failed.collected().pack(),
            succeeded=pack_lines(self._merge.lines("output")) if is_retry else None,
            failures=self._failures.groups,
        )

    def _noted(self, run: Run, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The same error lines, each counted as it goes by."""
        for place, data in zip(run.places, lines, strict=True):
            failure = read_failure(data)
            self._failed.add(place[0], failure.code, self._failures.add(place[0], failure))
            yield data

    async def _load_indices(self, segment_key: str, rows: list[StoredSlice]) -> None:
        number = self._numbers.setdefault(segment_key, len(self._segments))
        if number == len(self._segments):
            self._segments.append(segment_key)
        places = [index_place(row) for row in rows]
        indices = await self._blobs.read_ranges(segment_key, places)
        for row, index in zip(rows, indices, strict=True):
            self._merge.add_slice(
                number, row.offset, index, completed=row.completed, failed=row.failed
            )
            self.settled += row.completed + row.failed

    async def _lines(self, run: Run) -> Iterator[bytes]:
        """The run's output lines, in order; each source is read once, before the first line."""
        ranges: dict[int, list[tuple[int, int]]] = {}
        for _, source, offset, length in run.places:
            ranges.setdefault(source, []).append((offset, length))
        by_source = {source: (await self._read(source, ranges[source]))[::-1] for source in ranges}
        lines = ((line, source, by_source[source].pop()) for line, source, _, _ in run.places)
        return (
            _unexecuted(self._batch, line, data) if source == INPUT else data
            for line, source, data in lines
        )

    async def _read(self, source: int, ranges: list[tuple[int, int]]) -> list[bytes]:
        if source != INPUT:
            return await self._blobs.read_ranges(self._segments[source], ranges)
        try:
            return await self._blobs.read_ranges(self._input_key, ranges)
        except BlobNotFound:
            return [b""] * len(ranges)  # their ids still say which lines of the file they were


def _joined(index: IndexWriter, run: Run, lines: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of those lines in fewer pieces, as each piece costs a call of the hash and of the
    writer. What is in a piece is added to the index.
    """
    numbers = (place[0] for place in run.places)
    while piece := list(islice(lines, _LINES_JOINED)):
        index.add(list(islice(numbers, len(piece))), piece)
        yield b"".join(piece)


def index_place(row: StoredSlice) -> tuple[int, int]:
    """The place of the slice's index in its segment: `(offset, length)`."""
    start = row.offset + row.ok_bytes + row.failed_bytes
    return start, (row.completed + row.failed) * INDEX_RECORD_BYTES


def _unexecuted(batch: Batch, line: int, data: bytes) -> bytes:
    """The error line of a request that never ran."""
    try:
        custom_id = read_request(data).custom_id
    except LineFormatError:
        custom_id = ""
    return render_unexecuted(
        batch.dialect, output_line_id(batch.id, line), custom_id, _UNEXECUTED[batch.status]
    )
