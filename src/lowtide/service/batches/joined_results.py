"""Results of a batch and its retries as one stream: each request once, a success if it has one.

Called by the results route. The result files of each batch are in input order, so this is a merge
of sorted streams by line number, in bounded memory: a block of each file. Invariants: of several
outcomes of a line the success is given, else the failure of the latest batch that ran it; a file
that is gone is an answer before the first byte, never a gap.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import cast

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import Store
from lowtide.service.batches.batches import batch_not_found

_ID_STARTS = len(b'{"id":"')
"""The place of the id in a line of a result file; the line number stands at the end of the id."""


class JoinedContent(msgspec.Struct, frozen=True):
    """`incomplete`: a retry runs still, so that some failures may yet become successes."""

    body: AsyncGenerator[bytes]
    incomplete: bool


class _Source(msgspec.Struct):
    """A result file; `rank` says which of two outcomes of a line wins, the lower one."""

    lines: AsyncIterator[list[bytes]]
    rank: int
    held: deque[bytes] = msgspec.field(default_factory=deque)


class JoinedResults:
    """Opens the results of batches and their retries as streams."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    async def open(self, project_id: str, batch_id: str, *, with_retries: bool) -> JoinedContent:
        """JSONL in input order; with retries, of all batches of the tree that have ended.

        Raises LowtideError: the batch is not there, runs still, failed in validation, or a result
        file of it or of one of its retries is gone.
        """
        batch = await self._store.batches.get(project_id, batch_id)
        if batch is None:
            raise batch_not_found(batch_id)
        _require_results(batch)
        members = [batch]
        if with_retries:
            members = await self._store.retries.tree(project_id, batch.tree_id)
        ended = [each for each in members if each.ended_at is not None and each.status != "failed"]
        parts = [await self._files(each) for each in ended]
        sources = [
            (file, 0 if is_output else len(ended) - place)
            for place, files in enumerate(parts)
            for is_output, file in files
        ]
        return JoinedContent(self._joined(sources), any(each.ended_at is None for each in members))

    async def _files(self, batch: Batch) -> list[tuple[bool, File]]:
        """The batch's result files, with whether each is the output. Raises LowtideError."""
        files = []
        for is_output, file_id in ((True, batch.output_file_id), (False, batch.error_file_id)):
            if file_id is None:
                continue
            file = await self._store.files.get(batch.project_id, file_id)
            if file is None or file.status != "uploaded":
                raise LowtideError(
                    "results_gone",
                    f"File '{file_id}' with results of batch '{batch.id}' was deleted, has expired"
                    " or was lost: the results cannot be joined without it.",
                )
            files.append((is_output, file))
        return files

    async def _joined(self, files: Sequence[tuple[File, int]]) -> AsyncGenerator[bytes]:
        async with AsyncExitStack() as stack:
            sources = []
            for file, rank in files:
                blocks = cast("AsyncGenerator[bytes]", self._blobs.stream(file.blob_key))
                lines = _whole_lines(await stack.enter_async_context(aclosing(blocks)))
                sources.append(_Source(lines, rank))
            piece: list[bytes] = []
            size = 0
            async for line in _merged(sources):
                piece.append(line)
                size += len(line)
                if size >= limits.STREAM_BLOCK_BYTES or len(piece) >= limits.JOIN_STEP_LINES:
                    yield b"".join(piece)
                    await asyncio.sleep(0)
                    piece, size = [], 0
            if piece:
                yield b"".join(piece)


def _require_results(batch: Batch) -> None:
    if batch.ended_at is None:
        raise LowtideError(
            "batch_not_ended",
            f"Batch '{batch.id}' is {batch.status}: its results in input order are there when it"
            " has ended. Its partial files can be read meanwhile.",
        )
    if batch.status == "failed":
        raise LowtideError(
            "batch_failed", f"Batch '{batch.id}' failed in validation and has no results."
        )


async def _merged(sources: Sequence[_Source]) -> AsyncIterator[bytes]:
    """Each line number once, ascending; the outcome with the lowest rank."""
    heap: list[tuple[int, int, int]] = []
    for place, source in enumerate(sources):
        if await _fill(source):
            heap.append((line_number(source.held[0]), source.rank, place))
    heapq.heapify(heap)
    last = 0
    while heap:
        number, rank, place = heap[0]
        source = sources[place]
        line = source.held.popleft()
        if source.held or await _fill(source):
            heapq.heapreplace(heap, (line_number(source.held[0]), rank, place))
        else:
            heapq.heappop(heap)
        if number != last:
            last = number
            yield line


async def _fill(source: _Source) -> bool:
    """Reads on until there is a line; False at the end."""
    while not source.held:
        lines = await anext(source.lines, None)
        if lines is None:
            return False
        source.held.extend(lines)
    return True


def line_number(output: bytes) -> int:
    """Returns the line of the input that a line of a result file answers."""
    end = output.index(b'"', _ID_STARTS)
    return int(output[output.rindex(b"-", _ID_STARTS, end) + 1 : end])


async def _whole_lines(blocks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """The lines that end in each block, with their newlines."""
    rest = b""
    async for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield [line + b"\n" for line in lines]
    if rest:
        yield [rest + b"\n"]
