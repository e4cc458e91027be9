"""Drift between rows and blobs: blobs that rows need and that are missing or damaged,
and blobs that no row knows.

The pure half of the consistency check (service/integrity/checker.py): values and comparisons.
Invariant: a blob is only called missing or damaged for a row that needs it, and an orphan
only when no row knows it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.chunk import NOTHING_DONE, mark_done
from lowtide.core.batches.line_sets import Lines
from lowtide.core.batches.plan import RECORD_BYTES, ChunkSpec, Plan, pack_record, unpack_entries
from lowtide.core.validation.line_splitter import LineSplitter

BlobRole = Literal["input", "upload", "plan", "segment", "result"]
"""What a row needs a blob for. input: of a batch in progress. upload: of a file that a client sent.
plan: of a batch with requests that have no outcome yet. segment: of slices of an unfinished batch.
result: an output or error file."""

ProblemKind = Literal["missing", "size", "content", "orphan"]
"""size: not as many bytes as the row says. content: the right size and another digest or number of
lines. orphan: no row knows the blob."""

PLAN_LOST: Final = BatchError(
    "plan_lost",
    "The plan of the batch was lost, and the input file does not give the same one any more. The"
    " output file has what finished before; the other requests are in the error file.",
)
RESULT_FILE_LOST: Final = BatchError(
    "result_file_lost",
    "A result file of this batch was lost, and the segments it was made of are gone as well. The"
    " file is marked as lost. Run the batch again if its results are still needed.",
)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that a row needs. `owner` is the id of the batch or file, "" for a segment.

    `bytes` is its size, for a segment the least that its slices need. `sha256` and `lines` are
    known of files alone.
    """

    need: BlobRole
    key: str
    owner: str = ""
    bytes: int
    sha256: str = ""
    lines: int = 0

    def fits(self, size: int) -> bool:
        return size >= self.bytes if self.need == "segment" else size == self.bytes


class Inconsistency(msgspec.Struct, frozen=True, kw_only=True):
    """One blob out of step with the rows; `reference` is None for an orphan.

    `bytes`: of the blob as it lies there; 0 when it is missing.
    """

    problem: ProblemKind
    key: str
    bytes: int = 0
    reference: Reference | None = None

    @property
    def kind(self) -> str:
        """The kind to count it under: `missing segment`, `orphan`."""
        return self.problem if self.reference is None else f"{self.problem} {self.reference.need}"


def compare(references: Iterable[Reference], sizes: Mapping[str, int]) -> Iterator[Inconsistency]:
    """Yields where blobs and rows disagree; `sizes` has those of the blobs that are there."""
    for reference in references:
        size = sizes.get(reference.key)
        if size is None:
            yield Inconsistency(problem="missing", key=reference.key, reference=reference)
        elif not reference.fits(size):
            yield Inconsistency(problem="size", key=reference.key, bytes=size, reference=reference)


class ChunkRow(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk as its row says."""

    seq: int
    model: str
    first: int
    count: int
    input_bytes: int
    state: str
    done: bytes

    def is_of(self, spec: ChunkSpec) -> bool:
        """Whether the plan has this very chunk; its estimate of tokens may have changed since."""
        mine = (self.seq, self.model, self.first, self.count, self.input_bytes)
        return mine == (spec.seq, spec.model, spec.first, spec.count, spec.input_bytes)


def is_plan_of(plan: Plan, chunks: Sequence[ChunkRow]) -> bool:
    """Whether running the chunks over this plan runs what was validated then."""
    return len(plan.chunks) == len(chunks) and all(
        row.is_of(spec) for row, spec in zip(chunks, plan.chunks, strict=True)
    )


class LinePlan:
    """A plan in the order of the file, for a batch that runs no more: only its lines matter.

    Feed blocks of the input, then `finish`. `wanted`: the lines of a retry; None: all of them.
    """

    def __init__(self, line_bytes_max: int, wanted: Lines | None = None) -> None:
        self._cutter = LineSplitter(line_bytes_max)
        self._records = bytearray()
        self._wanted = None if wanted is None else frozenset(wanted.tolist())

    def feed(self, block: bytes) -> None:
        for number, offset, raw, _ in self._cutter.cut(block):
            self._add(number, offset, raw)

    def finish(self) -> bytes:
        for number, offset, raw, _ in self._cutter.finish():
            self._add(number, offset, raw)
        return bytes(self._records)

    def _add(self, number: int, offset: int, raw: memoryview | None) -> None:
        if self._wanted is not None and number not in self._wanted:
            return
        if raw is not None and bytes(raw).strip():
            self._records += pack_record(number, offset, len(raw), 0)


def plan_of_numbers(settled: Iterable[int], total: int) -> bytes:
    """A plan when neither plan nor input is left: `total` lines, among them the settled ones.

    Which numbers the others had is a guess: the smallest that are free. It is right for every file
    without blank lines.
    """
    taken = sorted(set(settled))
    free = np.setdiff1d(np.arange(1, total + len(taken) + 1, dtype=np.uint32), taken)
    numbers = [*taken, *free[: total - len(taken)].tolist()]
    return b"".join(pack_record(number, 0, 0, 0) for number in sorted(numbers))


def bits_of_lines(plan: bytes, chunk: ChunkRow, lines: Iterable[int]) -> bytes:
    """The chunk's bits of those lines. Raises KeyError for a line that is not the chunk's."""
    start = chunk.first * RECORD_BYTES
    entries = unpack_entries(plan[start : start + chunk.count * RECORD_BYTES])
    place = {entry.line: index for index, entry in enumerate(entries)}
    return mark_done(NOTHING_DONE, [place[line] for line in lines])


def without_bits(done: bytes, lost: bytes) -> bytes:
    """`done` with the bits of `lost` cleared."""
    return bytes(bit & ~gone for bit, gone in zip(done, lost, strict=True))
