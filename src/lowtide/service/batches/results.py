"""Reading results line by line while the batch runs, and for a while after.

Called by the file content route when the file is still growing or the client gives an `offset`:
the count of lines that it has. Lines come in the order in which they were committed, which never
changes, so a reader that asks again with the last `X-Last-Line` it saw misses no line and sees
none twice, even when the batch ends between two reads (the assembled file is in input order).
Invariant: what a read covers is fixed when it is opened, so its length is exact however much is
committed meanwhile.

Source: autobatcher 0.12.0 sends `offset` and reads `X-Incomplete` and `X-Last-Line` (protocol.md
section 6). Lines that were never run (`batch_cancelled`, `batch_expired`) are in no segment: they
follow behind the committed failures, out of the assembled error file.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final, cast, get_args

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import output_file_id
from lowtide.core.batches.line import UnexecutedCode
from lowtide.core.batches.segment import INDEX_RECORD_BYTES, decode_index
from lowtide.core.errors import LowtideError
from lowtide.core.execution.records import StoredSlice
from lowtide.core.files.file import File
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.service.batches.whole_lines import whole_lines

NEVER_RUN: Final = frozenset(get_args(UnexecutedCode))
"""Codes that only the assembler writes."""


class PartialContent(msgspec.Struct, frozen=True):
    """`bytes` is the exact length of `body`; `last_line` counts the lines from the first of the
    file to the end of `body`; `incomplete` says that more will come.
    """

    body: AsyncGenerator[bytes]
    bytes: int
    incomplete: bool
    last_line: int


class _Range(msgspec.Struct, frozen=True):
    """Bytes of one segment."""

    key: str
    offset: int
    length: int


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The committed lines that one read covers: all behind the skipped ones, up to slice
    `last_seq`.

    `first` is where they start, with its slice's skipped lines left out; None when there are none.
    `lines` and `bytes_left` count the lines of the file committed so far, and the bytes to be read.
    """

    first: _Range | None
    first_seq: int
    last_seq: int
    lines: int
    bytes_left: int


class ResultReader:
    """Opens growing and finished result files behind a number of lines."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock

    async def open(self, project_id: str, file: File, offset: int | None) -> PartialContent:
        """What there is of `file` behind its first `offset` lines (None: 0).

        Raises LowtideError: `invalid_request` when `offset` is negative or `file` was uploaded by a
        client, `offset_expired` when the batch ended so long ago that the order of commit is lost.
        """
        skip = offset or 0
        if skip < 0:
            raise LowtideError("invalid_request", "offset must be 0 or more.", "offset")
        if file.batch_id is None:
            message = f"offset is for the results of a batch; '{file.id}' was uploaded."
            raise LowtideError("invalid_request", message, "offset")
        finished = file.status == "uploaded"
        if finished and skip >= file.lines:
            return PartialContent(_nothing(), 0, False, file.lines)
        if finished and await self._ended_long_ago(project_id, file.batch_id):
            return self._assembled(file, skip)
        side = _ResultKind(file)
        seen = await self._snapshot(side, skip)
        if not finished:
            return PartialContent(self._committed(side, seen), seen.bytes_left, True, seen.lines)
        rest_skip = max(0, skip - seen.lines)
        rest_lines, rest_bytes = await self._measure_never_run(side, seen, file, rest_skip)
        if seen.lines + rest_lines != file.lines:
            return self._assembled(file, skip)  # slices are missing: they were swept meanwhile
        body = self._with_unexecuted(side, seen, file, rest_skip)
        return PartialContent(body, seen.bytes_left + rest_bytes, False, file.lines)

    async def _ended_long_ago(self, project_id: str, batch_id: str) -> bool:
        """Whether the batch ended so long ago that its segments may be swept at any moment."""
        batch = await self._store.batches.get(project_id, batch_id)
        if batch is None or batch.ended_at is None:
            return batch is None
        age_s = (self._clock.now() - batch.ended_at).total_seconds()
        return age_s >= limits.SEGMENTS_KEEP_S

    def _assembled(self, file: File, skip: int) -> PartialContent:
        """The final file, in input order: right only for a reader that has nothing yet."""
        if skip:
            raise LowtideError(
                "offset_expired",
                "This batch ended too long ago to go on from an offset: its results are in input"
                " order now. Read the whole file without offset.",
                "offset",
            )
        return PartialContent(self._stream(file.blob_key), file.bytes, False, file.lines)

    async def _snapshot(self, side: "_ResultKind", skip: int) -> _Snapshot:
        lines = bytes_left = 0
        first: StoredSlice | None = None
        first_skip = 0
        last_seq = -1
        async for row in self._slices(side.batch_id):
            if first is None and lines + side.lines(row) > skip:
                first, first_skip = row, skip - lines
            if first is not None:
                bytes_left += side.range(row).length
            lines += side.lines(row)
            last_seq = row.seq
        start = await self._after_lines(side, first, first_skip) if first else None
        if first and start:
            bytes_left -= side.range(first).length - start.length
        return _Snapshot(
            first=start,
            first_seq=first.seq if first else -1,
            last_seq=last_seq,
            lines=lines,
            bytes_left=bytes_left,
        )

    async def _slices(self, batch_id: str, after_seq: int = -1) -> AsyncIterator[StoredSlice]:
        while rows := await self._store.results.slices(
            batch_id, after_seq=after_seq, limit=limits.SLICES_PAGE
        ):
            for row in rows:
                yield row
            after_seq = rows[-1].seq

    async def _after_lines(self, side: "_ResultKind", row: StoredSlice, skip: int) -> _Range:
        """The range of `row` without its first `skip` lines; its index says where they end."""
        whole = side.range(row)
        if not skip:
            return whole
        count = row.completed + row.failed
        data = await self._blobs.read(
            row.segment_key,
            row.offset + row.ok_bytes + row.failed_bytes,
            count * INDEX_RECORD_BYTES,
        )
        entries = decode_index(data, offset=row.offset, completed=row.completed, failed=row.failed)
        start = [entry for entry in entries if entry.ok == side.ok][skip].offset
        return _Range(whole.key, start, whole.offset + whole.length - start)

    async def _committed(self, side: "_ResultKind", seen: _Snapshot) -> AsyncGenerator[bytes]:
        """The bytes of the snapshot. Small neighbours are read together, large slices streamed."""
        group: list[_Range] = []
        async for part in self._ranges(side, seen):
            total = sum(p.length for p in group) + part.length
            if group and (part.key != group[0].key or total > limits.STREAM_BLOCK_BYTES):
                async with aclosing(self._read(group)) as blocks:
                    async for data in blocks:
                        yield data
                group = []
            group.append(part)
        async with aclosing(self._read(group)) as blocks:
            async for data in blocks:
                yield data

    async def _ranges(self, side: "_ResultKind", seen: _Snapshot) -> AsyncIterator[_Range]:
        if seen.first is None:
            return
        yield seen.first
        async for row in self._slices(side.batch_id, after_seq=seen.first_seq):
            if row.seq > seen.last_seq:
                return
            if side.lines(row):
                yield side.range(row)

    async def _read(self, group: list[_Range]) -> AsyncGenerator[bytes]:
        if len(group) == 1:
            async with aclosing(self._stream(*msgspec.structs.astuple(group[0]))) as blocks:
                async for data in blocks:
                    yield data
        elif group:
            places = [(part.offset, part.length) for part in group]
            for data in await self._blobs.read_ranges(group[0].key, places):
                yield data

    async def _with_unexecuted(
        self, side: "_ResultKind", seen: _Snapshot, file: File, rest_skip: int
    ) -> AsyncGenerator[bytes]:
        async with aclosing(self._committed(side, seen)) as blocks:
            async for data in blocks:
                yield data
        if seen.lines < file.lines:
            async with aclosing(self._unexecuted_lines(file, rest_skip)) as lines:
                async for line in lines:
                    yield line

    async def _measure_never_run(
        self, side: "_ResultKind", seen: _Snapshot, file: File, skip: int
    ) -> tuple[int, int]:
        """(error lines that no segment holds, their bytes without the first `skip`)."""
        lines = size = 0
        if seen.lines < file.lines and not side.ok:
            async for line in self._unexecuted_lines(file, 0):
                lines += 1
                size += len(line) if lines > skip else 0
        return lines, size

    async def _unexecuted_lines(self, file: File, skip: int) -> AsyncGenerator[bytes]:
        """Lines of the assembled error file that no segment holds, without the first `skip`."""
        blocks = self._stream(file.blob_key)
        async with aclosing(blocks), aclosing(whole_lines(blocks)) as lines:
            async for line in lines:
                if not _is_never_run(line):
                    continue
                if skip:
                    skip -= 1
                else:
                    yield line

    def _stream(
        self, key: str, offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes]:
        """Every adapter's stream is a generator: to be closed when it is not read to its end."""
        return cast("AsyncGenerator[bytes]", self._blobs.stream(key, offset, length))


class _ResultKind:
    """Which half of each slice belongs to a result file: the successes or the failures."""

    def __init__(self, file: File) -> None:
        assert file.batch_id is not None, "only result files have sides"
        self.batch_id = file.batch_id
        self.ok = file.id == output_file_id(file.batch_id)

    def lines(self, row: StoredSlice) -> int:
        return row.completed if self.ok else row.failed

    def range(self, row: StoredSlice) -> _Range:
        if self.ok:
            return _Range(row.segment_key, row.offset, row.ok_bytes)
        return _Range(row.segment_key, row.offset + row.ok_bytes, row.failed_bytes)


class _Error(msgspec.Struct):
    code: str | None = None


class _ErrorLine(msgspec.Struct):
    error: _Error | None = None


_error_line = msgspec.json.Decoder(_ErrorLine)


def _is_never_run(line: bytes) -> bool:
    if not any(code.encode() in line for code in NEVER_RUN):
        return False  # decoded only when it may be one
    error = _error_line.decode(line).error
    return error is not None and error.code in NEVER_RUN


async def _nothing() -> AsyncGenerator[bytes]:
    return
    yield b""
