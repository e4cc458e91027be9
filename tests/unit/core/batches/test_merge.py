"""core/batches/merge.py: committed outcomes back in input order."""

import struct
import tracemalloc

import pytest

from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.batches.merge import INPUT, Merge
from lowtide.core.batches.plan import PlanEntry, pack_entries
from lowtide.core.batches.segment import Finished, SegmentFormatError, Slice, encode_segment


def index_offset(piece: Slice) -> int:
    """Where the index begins, behind the lines."""
    return piece.offset + piece.ok_bytes + piece.failed_bytes


def add_beat(merge: Merge, source: int, *outcomes: tuple[int, bool, bytes]) -> bytes:
    """One segment with one slice of `(line, ok, output)`; its bytes."""
    finished = [Finished(i, line, ok, out) for i, (line, ok, out) in enumerate(outcomes)]
    data, (piece,) = encode_segment([(ChunkKey("b", 0), 1, finished)])
    index = data[index_offset(piece) :]
    merge.add_slice(source, 0, index, completed=piece.completed, failed=piece.failed)
    return data


def lines_of(merge: Merge, kind: str, bytes_max: int = 1 << 20) -> list[int]:
    return [place[0] for run in merge.runs(kind, bytes_max) for place in run.places]


def test_nothing_committed_gives_two_empty_files() -> None:
    merge = Merge()
    assert (merge.count("output"), merge.count("errors"), merge.doubled) == (0, 0, 0)
    assert list(merge.runs("output", 100)) == []


def test_lines_of_many_segments_come_in_input_order_each_from_its_place() -> None:
    merge = Merge()
    segments = [
        add_beat(merge, 0, (5, True, b"five\n"), (2, False, b"two\n")),
        add_beat(merge, 1, (1, True, b"one\n"), (9, True, b"nine\n")),
    ]
    output = b"".join(
        segments[source][offset : offset + length]
        for run in merge.runs("output", 100)
        for _, source, offset, length in run.places
    )
    assert output == b"one\nfive\nnine\n"
    assert lines_of(merge, "errors") == [2]


def test_runs_stay_within_the_bound_and_a_larger_line_is_alone() -> None:
    merge = Merge()
    add_beat(merge, 0, *((n, True, b"x" * n) for n in (4, 5, 30, 1, 2)))
    runs = [[p[0] for p in run.places] for run in merge.runs("output", 10)]
    assert runs == [[1, 2, 4], [5], [30]]


def test_what_never_ran_is_taken_from_the_plan_as_an_error() -> None:
    merge = Merge()
    add_beat(merge, 0, (2, True, b"two\n"))
    plan = pack_entries([PlanEntry(n, n * 100, 50 + n, 1) for n in (3, 1, 2)])
    merge.add_unexecuted(plan)
    assert lines_of(merge, "output") == [2]
    (run,) = merge.runs("errors", 1000)
    assert run.places == [(1, INPUT, 100, 51), (3, INPUT, 300, 53)]


def test_a_second_outcome_of_a_line_is_passed_over_and_counted() -> None:
    merge = Merge()
    add_beat(merge, 0, (1, True, b"first\n"))
    add_beat(merge, 1, (1, True, b"again\n"), (2, True, b"two\n"))
    (run,) = merge.runs("output", 1000)
    assert [place[:2] for place in run.places] == [(1, 0), (2, 1)]
    assert merge.doubled == 1


def test_an_index_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(SegmentFormatError, match="index of 2 lines has 8 bytes"):
        Merge().add_slice(0, 0, b"12345678", completed=1, failed=1)


def test_offsets_beyond_four_gigabytes_are_kept() -> None:
    merge = Merge()
    offset = 5 * 2**30
    data, (piece,) = encode_segment([(ChunkKey("b", 0), 1, [Finished(0, 1, True, b"one\n")])])
    merge.add_slice(0, offset, data[index_offset(piece) :], completed=1, failed=0)
    (run,) = merge.runs("output", 100)
    assert run.places == [(1, 0, offset, 4)]


def test_a_line_costs_some_sixty_bytes_at_most_while_the_lines_are_sorted() -> None:
    count, slice_lines = 50_000, 100
    tracemalloc.start()
    try:
        merge = Merge()
        for start in range(count, 0, -slice_lines):
            index = b"".join(struct.pack("<II", start - n, 500) for n in range(slice_lines))
            merge.add_slice(0, start * 500, index, completed=slice_lines, failed=0)
        assert merge.count("output") == count
        _, peak = tracemalloc.get_traced_memory()
        for _ in merge.runs("output", 1 << 16):
            pass
        _, peak_of_all = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / count < 60
    assert peak_of_all / count < 60
