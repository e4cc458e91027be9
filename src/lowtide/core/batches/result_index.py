"""Where each line of a result file lies, so that a page of it or one `custom_id` is found at once.

Assembly writes the index beside the file (service/batches/assembly.py), and result_pages.py reads
ranges of it: no reader needs more than a few kilobytes, however long the file is. It follows from
the file alone, so a lost one is made anew. Layout: a head, one record for each line in the order of
the file, then `(CRC-32 of the custom_id, place)` sorted by the first. Pure.
"""

import re
import struct
from array import array
from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import msgspec
import numpy as np

from lowtide.core.batches.plan import PLAN_DTYPE, RECORD_BYTES, RecordArray

SUFFIX: Final = ".index"
"""What the key of an index has behind the key of its result file."""

_HEAD: Final = struct.Struct("<8sII")
_MAGIC: Final = b"LTINDEX1"
_RECORD: Final = np.dtype(
    [
        ("line", "<u4"),
        ("offset", "<u8"),
        ("length", "<u4"),
        ("input_offset", "<u8"),
        ("input_length", "<u4"),
    ]
)
_KEY: Final = np.dtype([("crc", "<u4"), ("place", "<u4")])
_FIND_ID: Final = re.compile(rb'"custom_id":"([^"\\]*(?:\\.[^"\\]*)*)"').search
HEAD_BYTES: Final = _HEAD.size

Range = tuple[int, int]
"""`(offset, length)` in bytes."""


class ResultIndexError(ValueError):
    """The bytes are no index of a result file."""


class LinePlace(msgspec.Struct, frozen=True):
    """One line of the file: the input line that it answers, and its bytes with the newline; and
    where that line of the input lies, without its newline. `input_length` 0: not known.
    """

    line: int
    offset: int
    length: int
    input_offset: int = 0
    input_length: int = 0


class IndexWriter:
    """Takes the lines of a result file in their order; `pack` gives the index's bytes."""

    def __init__(self) -> None:
        # Four bytes a number; a list takes some forty for each, and files have a million lines.
        self._lines, self._lengths, self._crcs = array("I"), array("I"), array("I")

    def add(self, lines: Sequence[int], outputs: Sequence[bytes]) -> None:
        """Adds the next lines of the file: `outputs`, which answer the input lines `lines`.

        Many at a time, as a call for each would cost more than what it does.
        """
        self._lines.extend(lines)
        self._lengths.extend(map(len, outputs))
        self._crcs.extend(map(crc32, map(custom_id_of, outputs)))

    def pack(self, plan: bytes = b"") -> bytes:
        """The whole index. `plan`: the batch's (core/batches/plan.py), which knows where the lines
        of the input lie."""
        records = np.empty(len(self._lines), _RECORD)
        records["line"] = self._lines
        records["length"] = self._lengths
        ends = np.cumsum(records["length"], dtype=np.uint64)
        records["offset"] = ends - records["length"]
        records["input_offset"], records["input_length"] = _inputs(records["line"], plan)
        keys = np.empty(len(self._crcs), _KEY)
        keys["crc"] = self._crcs
        keys["place"] = np.arange(len(keys))
        keys = keys[np.argsort(keys["crc"], kind="stable")]
        return _HEAD.pack(_MAGIC, len(records), 0) + records.tobytes() + keys.tobytes()


def _inputs(lines: RecordArray, plan: bytes) -> tuple[RecordArray, RecordArray]:
    """Offsets and lengths of these lines in the input, 0 for those that the plan has not."""
    known = np.frombuffer(plan[: len(plan) // RECORD_BYTES * RECORD_BYTES], PLAN_DTYPE)
    if not len(known):
        return np.zeros(len(lines), np.uint64), np.zeros(len(lines), np.uint32)
    order = np.argsort(known["line"], kind="stable")
    places = order[np.searchsorted(known["line"][order], lines).clip(max=len(order) - 1)]
    inputs = known[places]
    is_there = inputs["line"] == lines
    return inputs["offset"] * is_there, inputs["length"] * is_there


def line_number_of(output: bytes) -> int:
    """The input line that an output line answers: its `id` ends with it. 0 where it has none."""
    head = output[: output.find(b'","')]
    number = head.rpartition(b"-")[2]
    return int(number) if number.isdigit() else 0


def custom_id_of(output: bytes) -> bytes:
    """The `custom_id` of an output line as it stands there, in JSON without its quotes."""
    matched = _FIND_ID(output)
    return matched[1] if matched else b""


def key_of(custom_id: str) -> tuple[bytes, int]:
    """The id as output lines have it, and its CRC-32."""
    text = msgspec.json.encode(custom_id)[1:-1]
    return text, crc32(text)


def read_count(head: bytes) -> int:
    """The number of lines, from the index's first HEAD_BYTES. Raises ResultIndexError."""
    try:
        magic, count, _ = _HEAD.unpack(head)
    except struct.error:
        raise ResultIndexError("the index has no head") from None
    if magic != _MAGIC:
        raise ResultIndexError("this is no index of a result file")
    return int(count)


def records_at(first: int, count: int) -> Range:
    """Where the records of `count` lines from the place `first` on lie in the index."""
    return HEAD_BYTES + first * _RECORD.itemsize, count * _RECORD.itemsize


def read_records(data: bytes) -> list[LinePlace]:
    """Reads records. Raises ResultIndexError where `data` ends inside one."""
    return [LinePlace(*map(int, row)) for row in _array(data, _RECORD)]


def lines_before(data: bytes, places: Sequence[int]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """How many of these records answer one of the first `place` lines of the input, for each place.
    Raises ResultIndexError where `data` ends inside a record.
    """
    return np.searchsorted(_array(data, _RECORD)["line"], places, "right")


def keys_at(lines: int, first: int, count: int) -> Range:
    """Where `count` sorted keys from `first` on lie in the index of `lines` lines."""
    start = HEAD_BYTES + lines * _RECORD.itemsize
    return start + first * _KEY.itemsize, count * _KEY.itemsize


def guess(lines: int, crc: int, spread: int) -> tuple[int, int]:
    """The keys among which that CRC most likely stands, as (first, count): CRCs are spread evenly.

    `spread` keys on either side; a search that finds its key at an edge asks again with more.
    """
    middle = crc * lines >> 32
    first = max(0, middle - spread)
    return first, min(lines, middle + spread) - first


class KeyHits(msgspec.Struct, frozen=True):
    """Places whose ids have the CRC; `is_whole` False: more may lie outside of what was read."""

    places: Sequence[int]
    is_whole: bool


def read_keys(data: bytes, crc: int, *, first: int, lines: int) -> KeyHits:
    """Looks for the CRC in keys that were read from `first` on. Raises ResultIndexError."""
    keys = _array(data, _KEY)
    crcs = keys["crc"]
    low, high = np.searchsorted(crcs, crc, "left"), np.searchsorted(crcs, crc, "right")
    begins = bool(low > 0) or first == 0
    ends = bool(high < len(keys)) or first + len(keys) == lines
    return KeyHits([int(place) for place in keys["place"][low:high]], begins and ends)


def _array(data: bytes, kind: "np.dtype[np.void]") -> RecordArray:
    if len(data) % kind.itemsize:
        raise ResultIndexError(f"{len(data)} bytes are no whole number of records")
    return np.frombuffer(data, kind)
