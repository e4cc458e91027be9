"""Which prompts begin alike: the order that lets an engine reuse what it has computed.

Validation shows it every block of an input file; when the file has ended, `order` says in which
order a model's requests should run, so that prompts with a common beginning follow each other and
the engine's prefix cache still holds it. Neither parsed nor hashed is any prompt: a few bytes of it
are looked at, at growing depths, and two prompts count as alike down to the last depth at which
these agree. A mistake costs a cache miss, never a result. Where nothing is shared the order
is that of the file; groups come in the order of their first lines. Pure, and independent of how the
file was cut into blocks. Source: scheduling.md section 2(b): sorting is a walk of the prefix tree.
"""

from collections.abc import Sequence
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
_ALONE: Final = np.uint64(0)

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
        self._marks: list[npt.NDArray[np.uint64]] = []
        self._lengths: list[npt.NDArray[np.int64]] = []

    def add(self, data: bytes, starts: Sequence[int], ends: Sequence[int]) -> None:
        """The next requests: their lines are `data[start:end]`."""
        find, needle = data.find, self._needle
        found = [find(needle, a, b) for a, b in zip(starts, ends, strict=True)]
        prompts = np.maximum(np.array(found, np.int64), np.asarray(starts, np.int64))
        lengths = np.asarray(ends, np.int64) - prompts
        self._lengths.append(lengths)
        self._marks.append(_marks(data, prompts, lengths))

    def order(self) -> RunOrder | None:
        """None when the order of the file is as good: too little is shared, or it lies together."""
        if not self._lengths:
            return None
        lengths = np.concatenate(self._lengths)
        firsts = _first_alike(_stacked(self._marks))
        if not firsts:
            return None
        places = np.lexsort(firsts[::-1])
        depths = np.array((0, *_DEPTHS), np.int64)
        alike = _levels_alike(firsts, places)
        saved = int(depths[alike].sum()) / max(1, int(lengths.sum()))
        before = int(depths[_levels_alike(firsts, np.arange(len(lengths)))].sum())
        if saved < limits.PREFIX_SHARE_MIN or depths[alike].sum() <= before:
            return None
        following = np.append(alike[1:], 0)
        return RunOrder(places, alike < np.maximum(following, 1), saved)


def _marks(data: bytes, prompts: Indices, lengths: Indices) -> npt.NDArray[np.uint64]:
    """A row a prompt: for each depth a number made of all windows down to it, or `_ALONE`."""
    deep = int(np.searchsorted(_DEPTHS, lengths.max(initial=0), "right"))
    marks = np.zeros((len(prompts), deep), np.uint64)
    if not deep:
        return marks
    # Eight bytes from any place of the block as one number, without a copy of the block.
    windows: npt.NDArray[Any] = np.ndarray(
        (len(data) - _WINDOW + 1,), "<u8", buffer=data, strides=(1,)
    )
    mark = np.zeros(len(prompts), np.uint64)
    for level, depth in enumerate(_DEPTHS[:deep]):
        reaches = lengths >= depth
        seen = windows[prompts[reaches] + (depth - _WINDOW)]
        mark[reaches] = ((mark[reaches] ^ seen) + np.uint64(1)) * _MIX
        marks[reaches, level] = mark[reaches]
    return marks


def _stacked(parts: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    """All rows, as wide as the widest part."""
    wide = max(part.shape[1] for part in parts)
    stacked = np.zeros((sum(len(part) for part in parts), wide), np.uint64)
    row = 0
    for part in parts:
        stacked[row : row + len(part), : part.shape[1]] = part
        row += len(part)
    return stacked


def _first_alike(marks: npt.NDArray[np.uint64]) -> list[Indices]:
    """For each depth, as far down as any two agree: the first request alike to each.

    Who agrees with nobody is its own first; who agreed with nobody above is not looked at again.
    """
    own = np.arange(len(marks))
    among = own
    firsts: list[Indices] = []
    for level in range(marks.shape[1]):
        among = among[marks[among, level] != _ALONE]
        _, first, group, size = np.unique(
            marks[among, level], return_index=True, return_inverse=True, return_counts=True
        )
        company = size[group] > 1
        among, leaders = among[company], among[first][group][company]
        if not len(among):
            break
        column = own.copy()
        column[among] = leaders
        firsts.append(column)
    return firsts


def _levels_alike(firsts: Sequence[Indices], places: Indices) -> Indices:
    """How many depths down each request agrees with the one that runs before it."""
    alike = np.zeros(len(places), np.int64)
    still = np.ones(max(0, len(places) - 1), bool)
    for column in firsts:
        row = column[places]
        still &= row[1:] == row[:-1]
        alike[1:] += still
    return alike


assert all(a < b for a, b in pairwise(_DEPTHS)), "each depth lies below the one before"
