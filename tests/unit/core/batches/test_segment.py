"""core/batches/segment.py: packing outcomes, and finding them again."""

import pytest

from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.batches.segment import (
    Finished,
    SegmentFormatError,
    Slice,
    decode_index,
    encode_segment,
)
from lowtide.core.usage import NO_USAGE, Usage

A, B = ChunkKey("a", 0), ChunkKey("b", 7)


def index_offset(piece: Slice) -> int:
    """Where the index begins, behind the lines."""
    return piece.offset + piece.ok_bytes + piece.failed_bytes


def test_an_empty_beat_has_no_bytes_and_no_slices() -> None:
    assert encode_segment([]) == (b"", [])


def test_a_slice_holds_successes_then_failures_then_their_index() -> None:
    finished = [
        Finished(3, 4, False, b"no 4\n"),
        Finished(0, 1, True, b"yes 1\n", Usage(5, 1, 2, 0)),
        Finished(2, 3, True, b"yes 3, longer\n", Usage(7, 0, 3, 1)),
    ]
    data, (piece,) = encode_segment([(A, 9, finished)])
    assert data[: index_offset(piece)] == b"yes 1\nyes 3, longer\nno 4\n"
    assert (piece.key, piece.token, piece.offset) == (A, 9, 0)
    assert (piece.completed, piece.failed, piece.count) == (2, 1, 3)
    assert (piece.ok_bytes, piece.failed_bytes) == (20, 5)
    assert piece.indices == (0, 2, 3)
    assert piece.usage == Usage(12, 1, 5, 1)


def test_the_index_says_where_every_line_lies() -> None:
    first = [Finished(0, 1, True, b"one\n"), Finished(1, 2, False, b"two!\n")]
    second = [Finished(5, 99, False, b"ninety-nine\n")]
    data, slices = encode_segment([(A, 1, first), (B, 2, second)])
    found = {}
    for piece in slices:
        index = data[index_offset(piece) : index_offset(piece) + 8 * piece.count]
        for entry in decode_index(
            index, offset=piece.offset, completed=piece.completed, failed=piece.failed
        ):
            found[entry.line] = (entry.ok, data[entry.offset : entry.offset + entry.length])
    assert found == {1: (True, b"one\n"), 2: (False, b"two!\n"), 99: (False, b"ninety-nine\n")}


def test_failures_are_not_billed() -> None:
    failed = Finished(0, 1, False, b"no\n", Usage(100, 0, 100, 0))
    _, (piece,) = encode_segment([(A, 1, [failed])])
    assert piece.usage == NO_USAGE


def test_an_index_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(SegmentFormatError, match="2 lines has 15 bytes"):
        decode_index(b"x" * 15, offset=0, completed=1, failed=1)
