"""Which prompts begin alike: the order that lets an engine reuse what it has computed.

Validation shows it every block of an input file; when the file has ended, `order` says in which
order a model's requests should run, so that prompts with a common beginning follow each other and
the engine's prefix cache still holds it. Neither parsed nor hashed is any prompt: a few bytes of it
are looked at, at growing depths, and two prompts count as alike down to the last depth at which
these agree. A mistake costs a cache miss, never a result. Where nothing is shared the order
is that of the file; groups come in the order of their first lines. Pure, and independent of how the
file was cut into blocks. Source: scheduling.md section 2(b): sorting is a walk of the prefix tree.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from lowtide import limits

_DEPTHS: Final = (
    *(192, 384, 768, 1152, 1536, 2048, 3072, 4096),
    *(6144, 8192, 12288, 16384, 24576, 32768),
)
"""Bytes from the start of the prompt. Dense where a system prompt or a question's document ends."""
_WINDOW: Final = 8  # bytes looked at before each depth: one number
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_THINNED: Final = (*range(1, len(_DEPTHS), 2), 2, 6, 10, 4, 8, 12)
"""Levels to do without, in this order, where a file has too many marks: every other one first. The
marks of the others still tell apart what differs above them."""

Marks = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


class RunOrder(msgspec.Struct, frozen=True):
    """`places[i]` is which request runs as number i; `starts[i]` whether it begins a run, which is
    a stretch of requests that share the longest beginning they share with any.
    """

    places: Indices
    starts: npt.NDArray[np.bool_]
    saved_share: float
    """Bytes of prompts that follow a prompt with the same bytes, as a share of all of them."""


class PrefixSketch:
    """What the prompts of one model begin with. `field` is the body's key that holds a prompt."""

    def __init__(self, field: bytes) -> None:
        self._needle = b'"' + field + b'"'
        self._lengths = array("I")
        # By level, and only of the prompts that reach it, in file order.
        self._marks = {level: bytearray() for level in range(len(_DEPTHS))}
        self._marks_bytes = 0
        self._thinned = 0

    def add(self, data: bytes, starts: Sequence[int], ends: Sequence[int]) -> None:
        """The next requests: their lines are `data[start:end]`."""
        find, needle = data.find, self._needle
        ends_of_prefix = [find(needle, a, b) for a, b in zip(starts, ends, strict=True)]
        prompts = np.maximum(np.array(ends_of_prefix, np.int64), np.asarray(starts, np.int64))
        lengths = np.asarray(ends, np.int64) - prompts
        self._lengths.frombytes(lengths.astype(np.uint32).tobytes())
        for level, marks in _marks(data, prompts, lengths):
            if level in self._marks:
                self._marks[level] += marks.tobytes()
                self._marks_bytes += marks.nbytes
        self._thin_out()

    def _thin_out(self) -> None:
        """Bound the memory. What is left follows from all prompts, not from the order of calls."""
        bytes_max = limits.PREFIX_MARKS_MAX * np.uint64().nbytes
        while self._marks_bytes > bytes_max and self._thinned < len(_THINNED):
            self._marks_bytes -= len(self._marks.pop(_THINNED[self._thinned]))
            self._thinned += 1

    def order(self) -> RunOrder | None:
        """None when the order of the file is as good: too little is shared, or it lies together.

        Call it once, after the last `add`: it takes the marks apart.
        """
        lengths = np.array(self._lengths, np.uint32)
        kept = list(self._marks)
        firsts = _first_alike(lengths, self._marks)
        if not firsts:
            return None
        places = np.lexsort(firsts[::-1])
        depths = np.array((0, *(_DEPTHS[level] for level in kept)), np.int64)
        alike = _levels_alike(firsts, places)
        seen_before = int(depths[alike].sum())
        saved = seen_before / max(1, int(lengths.sum(dtype=np.int64)))
        as_it_lies = _levels_alike(firsts, np.arange(len(lengths), dtype=np.int32))
        if saved < limits.PREFIX_SHARE_MIN or seen_before <= int(depths[as_it_lies].sum()):
            return None
        following = np.append(alike[1:], 0)
        return RunOrder(places, alike < np.maximum(following, 1), saved)


def _marks(data: bytes, prompts: Indices, lengths: Indices) -> Iterator[tuple[int, Marks]]:
    """Yields each level that some prompt reaches, with a hash, for every prompt that reaches it, of
    all windows down to that level.
    """
    if lengths.max(initial=0) < _DEPTHS[0]:
        return
    # Eight bytes from any place of the block as one number, without a copy of the block.
    windows: npt.NDArray[Any] = np.ndarray(
        (len(data) - _WINDOW + 1,), "<u8", buffer=data, strides=(1,)
    )
    mark = np.zeros(len(prompts), np.uint64)
    for level, depth in enumerate(_DEPTHS):
        reaches = lengths >= depth
        prompts, lengths, mark = prompts[reaches], lengths[reaches], mark[reaches]
        if not len(prompts):
            return
        mark = ((mark ^ windows[prompts + (depth - _WINDOW)]) + np.uint64(1)) * _MIX
        yield level, mark


def _first_alike(
    lengths: npt.NDArray[np.uint32], marks_by_level: dict[int, bytearray]
) -> list[npt.NDArray[np.int32]]:
    """The first request with the same prefix, per request: one column for each level, as far down
    as any two requests agree.

    A request that agrees with no other is its own first, and is not compared at deeper levels. The
    marks are freed level by level: a million requests have many megabytes of them.
    """
    own = np.arange(len(lengths), dtype=np.int32)
    in_company = np.ones(len(lengths), bool)
    firsts: list[npt.NDArray[np.int32]] = []
    for level in sorted(marks_by_level):
        marks = np.frombuffer(marks_by_level.pop(level), np.uint64)
        reaching = own[lengths >= _DEPTHS[level]]
        among = in_company[reaching]
        members, leaders = _groups(reaching[among], marks[among])
        if not len(members):
            break
        column = own.copy()
        column[members] = leaders
        firsts.append(column)
        in_company[:] = False
        in_company[members] = True
    return firsts


def _groups(
    requests: npt.NDArray[np.int32], marks: Marks
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Requests that share their mark with another, and for each the first that has it."""
    order = np.argsort(marks, kind="stable")
    marks, requests = marks[order], requests[order]
    starts = np.flatnonzero(np.append(True, marks[1:] != marks[:-1]))[: len(marks)]
    sizes = np.diff(np.append(starts, len(marks)))
    in_company = np.repeat(sizes > 1, sizes)
    return requests[in_company], np.repeat(requests[starts], sizes)[in_company]


def _levels_alike(
    firsts: Sequence[npt.NDArray[np.int32]], places: npt.NDArray[Any]
) -> npt.NDArray[np.int8]:
    """How many depths down each request agrees with the one that runs before it."""
    alike = np.zeros(len(places), np.int8)
    still = np.ones(max(0, len(places) - 1), bool)
    for column in firsts:
        row = column[places]
        still &= row[1:] == row[:-1]
        alike[1:] += still
    return alike


assert all(a < b for a, b in pairwise(_DEPTHS)), "each depth lies below the one before"
assert sorted((0, *_THINNED)) == list(range(len(_DEPTHS))), "all but the first may have to go"
