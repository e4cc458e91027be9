"""Sets of lines of an input file, as compact bytes: which lines, and why each had no success.

Assembly writes them when a batch ends, a retry reads them (core/batches/retry.py), and they lie in
one row each. Sorted numbers as differences, compressed: about a byte and a half for each line of a
random half of a file, next to nothing for all of it. Pure. Invariant: numbers come back sorted and
each once.
"""

import zlib
from array import array
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from lowtide import limits

Lines = npt.NDArray[np.uint32]
"""Line numbers, from 1, ascending, each once."""

NO_LINES: Final[Lines] = np.empty(0, np.uint32)
OTHER_CODE: Final = "other"
"""Stands for codes above the bound."""
_FAST: Final = 1  # of zlib: half the size of the differences is what matters, not the last tenth


class LineSetError(ValueError):
    """The bytes are no set of lines."""


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    names: tuple[str, ...]
    lines: bytes
    codes: bytes


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
    """Lines without success, ascending, and of each the place of its code in `names`."""

    lines: Lines
    codes: npt.NDArray[np.uint8]
    names: tuple[str, ...]

    def pack(self) -> bytes:
        """Returns the bytes that `unpack_failed` reads."""
        codes = zlib.compress(self.codes.tobytes(), _FAST)
        return msgspec.msgpack.encode(_Packed(self.names, pack_lines(self.lines), codes))

    def counts(self) -> dict[str, int]:
        """Lines by code, the most frequent first."""
        counted = np.bincount(self.codes, minlength=len(self.names)).tolist()
        found = sorted(zip(counted, self.names, strict=True), key=lambda each: (-each[0], each[1]))
        return {name: count for count, name in found if count}

    def of(self, chosen: npt.NDArray[np.bool_]) -> "FailedLines":
        """The chosen lines alone."""
        return FailedLines(self.lines[chosen], self.codes[chosen], self.names)


NO_FAILED_LINES: Final = FailedLines(NO_LINES, np.empty(0, np.uint8), ())


def unpack_failed(data: bytes) -> FailedLines:
    """Raises LineSetError."""
    try:
        packed = _decode_packed(data)
        codes = np.frombuffer(zlib.decompress(packed.codes), np.uint8)
    except (msgspec.DecodeError, zlib.error) as error:
        raise LineSetError(f"not a set of failed lines: {error}") from None
    return FailedLines(unpack_lines(packed.lines), codes, packed.names)


class FailedLineCollector:
    """Gathers lines and their codes in any order; six bytes a line."""

    def __init__(self) -> None:
        self._lines = array("I")
        self._codes = bytearray()
        self._places: dict[str, int] = {}

    def add(self, line: int, code: str) -> None:
        place = self._places.get(code)
        if place is None:
            if len(self._places) >= limits.FAILURE_CODES_MAX:
                code = OTHER_CODE
            place = self._places.setdefault(code, len(self._places))
        self._lines.append(line)
        self._codes.append(place)

    def collected(self) -> FailedLines:
        """All of them, ascending."""
        lines = np.array(self._lines, np.uint32)
        order = np.argsort(lines, kind="stable")
        codes = np.frombuffer(bytes(self._codes), np.uint8)
        return FailedLines(lines[order], codes[order], tuple(self._places))


def combined(first: FailedLines, *later: FailedLines) -> FailedLines:
    """All lines of these; where a line is in several, its code is that of the last one."""
    names: dict[str, int] = {}
    parts: list[tuple[Lines, npt.NDArray[Any]]] = []
    for each in (first, *later):
        places = [names.setdefault(name, len(names)) for name in each.names]
        parts.append((each.lines, np.array(places, np.int64)[each.codes] if places else each.codes))
    lines = np.concatenate([part[0] for part in parts])[::-1]
    codes = np.concatenate([part[1] for part in parts])[::-1]
    unique, first_places = np.unique(lines, return_index=True)
    kept, known = _bounded(codes[first_places], tuple(names))
    return FailedLines(unique.astype(np.uint32), kept, known)


def _bounded(
    codes: npt.NDArray[Any], names: Sequence[str]
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Returns codes and names, at most as many names as a byte can tell apart."""
    most = limits.FAILURE_CODES_MAX
    if len(names) <= most + 1:
        return codes.astype(np.uint8), tuple(names)
    return np.minimum(codes, most).astype(np.uint8), (*names[:most], OTHER_CODE)
