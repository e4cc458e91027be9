"""Sets of lines of an input file, as compact bytes: which lines, and why each had no success.

Assembly writes them when a batch ends, a retry reads them (core/batches/retry.py), and they lie in
one row each. Sorted numbers as differences, compressed: about a byte and a half for each line of a
random half of a file, next to nothing for all of it. Pure. Invariant: numbers come back sorted and
each once.
"""

import zlib
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from lowtide import limits
from lowtide.core.batches.failures import OTHER, OTHER_ID

Lines = npt.NDArray[np.uint32]
"""Line numbers, from 1, ascending, each once."""

NO_LINES: Final[Lines] = np.empty(0, np.uint32)
_ABOVE: Final = (OTHER, OTHER_ID)
"""Code and group that stand for those above the bound."""
_FAST: Final = 1  # of zlib: half the size of the differences is what matters, not the last tenth


class LineSetError(ValueError):
    """The bytes are no set of lines."""


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    names: tuple[str, ...]
    lines: bytes
    codes: bytes
    groups: tuple[str, ...] = ()


_decode_packed = msgspec.msgpack.Decoder(_Packed).decode


def pack_lines(lines: Lines) -> bytes:
    """Ascending numbers as bytes."""
    return zlib.compress(np.diff(lines, prepend=np.uint32(0)).astype("<u4").tobytes(), _FAST)


def unpack_lines(data: bytes) -> Lines:
    """The numbers again. Raises LineSetError."""
    try:
        gaps = np.frombuffer(zlib.decompress(data), "<u4")
    except (zlib.error, ValueError) as error:
        raise LineSetError(f"not a set of lines: {error}") from None
    return np.cumsum(gaps, dtype=np.uint32)


class FailedLines(msgspec.Struct, frozen=True):
    """Lines without success, ascending, and of each the place of its code in `names`, and in
    `groups` that of its group of failures (`FailureGroup.id`), empty where that is not known.
    """

    lines: Lines
    codes: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def pack(self) -> bytes:
        """Returns the bytes that `unpack_failed` reads."""
        codes = zlib.compress(self.codes.tobytes(), _FAST)
        return msgspec.msgpack.encode(
            _Packed(self.names, pack_lines(self.lines), codes, self.groups)
        )

    def counts(self) -> dict[str, int]:
        """Lines by code, the most frequent first."""
        counted: Counter[str] = Counter()
        for name, count in zip(
            self.names, np.bincount(self.codes, minlength=len(self.names)).tolist(), strict=True
        ):
            counted[name] += count
        by_count = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
        return {name: count for name, count in by_count if count}

    def of(self, chosen: npt.NDArray[np.bool_]) -> "FailedLines":
        """The chosen lines alone."""
        return FailedLines(self.lines[chosen], self.codes[chosen], self.names, self.groups)


NO_FAILED_LINES: Final = FailedLines(NO_LINES, np.empty(0, np.uint8), (), ())


def unpack_failed(data: bytes) -> FailedLines:
    """Raises LineSetError."""
    try:
        packed = _decode_packed(data)
        codes = np.frombuffer(zlib.decompress(packed.codes), np.uint8)
    except (msgspec.DecodeError, zlib.error) as error:
        raise LineSetError(f"not a set of failed lines: {error}") from None
    groups = packed.groups or ("",) * len(packed.names)
    return FailedLines(unpack_lines(packed.lines), codes, packed.names, groups)


class FailedLineCollector:
    """Gathers lines, their codes and groups in any order; six bytes a line."""

    def __init__(self) -> None:
        self._lines = array("I")
        self._codes = bytearray()
        self._places: dict[tuple[str, str], int] = {}

    def add(self, line: int, code: str, group: str = "") -> None:
        reason = (code, group)
        place = self._places.get(reason)
        if place is None:
            if len(self._places) >= limits.FAILURE_CODES_MAX:
                reason = _ABOVE
            place = self._places.setdefault(reason, len(self._places))
        self._lines.append(line)
        self._codes.append(place)

    def collected(self) -> FailedLines:
        """All of them, ascending."""
        lines = np.array(self._lines, np.uint32)
        order = np.argsort(lines, kind="stable")
        codes = np.frombuffer(bytes(self._codes), np.uint8)
        return _failed(lines[order], codes[order], tuple(self._places))


def combined(first: FailedLines, *later: FailedLines) -> FailedLines:
    """All lines of these; where a line is in several, its code and group are those of the last."""
    reasons: dict[tuple[str, str], int] = {}
    parts: list[tuple[Lines, npt.NDArray[Any]]] = []
    for each in (first, *later):
        these = zip(each.names, each.groups, strict=True)
        places = [reasons.setdefault(reason, len(reasons)) for reason in these]
        parts.append((each.lines, np.array(places, np.int64)[each.codes] if places else each.codes))
    lines = np.concatenate([part[0] for part in parts])[::-1]
    codes = np.concatenate([part[1] for part in parts])[::-1]
    unique, first_places = np.unique(lines, return_index=True)
    return _bounded(unique.astype(np.uint32), codes[first_places], tuple(reasons))


def _bounded(
    lines: Lines, codes: npt.NDArray[Any], reasons: Sequence[tuple[str, str]]
) -> FailedLines:
    """Keeps at most as many reasons as a byte can tell apart: where there are more, groups are
    given up first, for a code says more than the words beside it.
    """
    most = limits.FAILURE_CODES_MAX
    if len(reasons) > most + 1:
        names = dict.fromkeys(name for name, _ in reasons)
        place_of = {name: place for place, name in enumerate(names)}
        codes = np.array([place_of[name] for name, _ in reasons], np.int64)[codes]
        reasons = [(name, "") for name in names]
    if len(reasons) > most + 1:
        codes, reasons = np.minimum(codes, most), [*reasons[:most], _ABOVE]
    return _failed(lines, codes.astype(np.uint8), reasons)


def _failed(
    lines: Lines, codes: npt.NDArray[np.uint8], reasons: Sequence[tuple[str, str]]
) -> FailedLines:
    names, groups = (tuple(each[part] for each in reasons) for part in (0, 1))
    return FailedLines(lines, codes, names, groups)
