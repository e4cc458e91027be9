"""A segment: the immutable blob with the outcomes that one worker finished between two commits.

Layout: one slice per chunk, one after another. A slice is `[successes][failures][index]`: output
lines as they will stand in the result files, successes first, each in the order they finished;
then one record
`(line u32, length u32)` per output line in the same order. So a reader that wants the finished
results of a running batch reads one range, and the assembler reads the index alone to know where
every line lies.

Callers: loops/dispatch/commit.py writes, service/batches/results.py and loops/batches/assemble.py
read. Pure.
"""

import struct
from collections.abc import Iterable, Sequence

import msgspec

from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.batches.failures import FailureCount, FailureGroup, read_failure
from lowtide.core.usage import NO_USAGE, Usage

_RECORD = struct.Struct("<II")
INDEX_RECORD_BYTES = _RECORD.size


class Finished(msgspec.Struct, frozen=True, gc=False):
    """One request's final outcome: `index` in its chunk, `line` in its file, `output` the JSONL
    line.
    """

    index: int
    line: int
    ok: bool
    output: bytes
    usage: Usage = NO_USAGE


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a chunk's outcomes of one commit in a segment, and what they sum to."""

    key: ChunkKey
    token: int
    offset: int
    ok_bytes: int
    failed_bytes: int
    completed: int
    failed: int
    indices: tuple[int, ...]
    usage: Usage
    failures: tuple[FailureGroup, ...] = ()

    @property
    def count(self) -> int:
        return self.completed + self.failed


class IndexEntry(msgspec.Struct, frozen=True):
    """An output line's place: `offset` and `length` in bytes within its segment."""

    line: int
    ok: bool
    offset: int
    length: int


class SegmentFormatError(Exception):
    """The bytes are no segment index: the blob is damaged, or Lowtide did not write it."""


def encode_segment(
    chunks: Iterable[tuple[ChunkKey, int, Sequence[Finished]]],
) -> tuple[bytes, list[Slice]]:
    """Packs `(chunk, lease token, outcomes)` into a segment's bytes and the slices that describe
    it.
    """
    parts: list[bytes] = []
    slices: list[Slice] = []
    offset = 0
    for key, token, finished in chunks:
        ordered = [f for f in finished if f.ok] + [f for f in finished if not f.ok]
        ok_bytes = sum(len(f.output) for f in ordered if f.ok)
        failed_bytes = sum(len(f.output) for f in ordered if not f.ok)
        completed = sum(1 for f in ordered if f.ok)
        parts += [f.output for f in ordered]
        parts += [_RECORD.pack(f.line, len(f.output)) for f in ordered]
        slices.append(
            Slice(
                key=key,
                token=token,
                offset=offset,
                ok_bytes=ok_bytes,
                failed_bytes=failed_bytes,
                completed=completed,
                failed=len(ordered) - completed,
                indices=tuple(f.index for f in ordered),
                usage=_sum_usage(ordered),
                failures=_failures(ordered) if completed < len(ordered) else (),
            )
        )
        offset += ok_bytes + failed_bytes + _RECORD.size * len(ordered)
    return b"".join(parts), slices


def decode_index(data: bytes, *, offset: int, completed: int, failed: int) -> list[IndexEntry]:
    """Reads a slice's index. `offset` is where the slice starts in its segment.

    Raises SegmentFormatError when `data` is not `completed + failed` records long.
    """
    count = completed + failed
    if len(data) != count * _RECORD.size:
        raise SegmentFormatError(f"index of {count} lines has {len(data)} bytes")
    entries: list[IndexEntry] = []
    for place, (line, length) in enumerate(_RECORD.iter_unpack(data)):
        entries.append(IndexEntry(line, place < completed, offset, length))
        offset += length
    return entries


def _failures(finished: Iterable[Finished]) -> tuple[FailureGroup, ...]:
    count = FailureCount()
    for item in finished:
        if not item.ok:
            count.add(item.line, read_failure(item.output))
    return count.groups


def _sum_usage(finished: Iterable[Finished]) -> Usage:
    usages = [item.usage for item in finished if item.ok]
    return Usage(
        sum(usage.input_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
        sum(usage.output_tokens for usage in usages),
        sum(usage.reasoning_tokens for usage in usages),
        sum(usage.unreported for usage in usages),
    )
