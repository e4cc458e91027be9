"""core/batches/chunk.py: the bitmap of finished requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.batches.chunk import (
    NOTHING_DONE,
    ChunkKey,
    done_count,
    is_done,
    mark_done,
    missing,
)
from lowtide.limits import CHUNK_REQUESTS_MAX

INDICES = st.sets(st.integers(0, CHUNK_REQUESTS_MAX - 1))


@given(first=INDICES, second=INDICES)
def test_a_bit_is_set_for_every_index_ever_marked_and_for_no_other(
    first: set[int], second: set[int]
) -> None:
    done = mark_done(mark_done(NOTHING_DONE, first), second)
    everything = range(CHUNK_REQUESTS_MAX)
    assert {i for i in everything if is_done(done, i)} == first | second
    assert done_count(done) == len(first | second)
    assert list(missing(done, CHUNK_REQUESTS_MAX)) == sorted(set(everything) - first - second)


def test_missing_ends_at_the_count_of_the_chunk() -> None:
    assert list(missing(mark_done(NOTHING_DONE, [1]), 3)) == [0, 2]


@pytest.mark.parametrize("index", [-1, CHUNK_REQUESTS_MAX])
def test_an_index_outside_the_chunk_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=str(index)):
        mark_done(NOTHING_DONE, [index])


def test_keys_sort_by_batch_and_then_by_place() -> None:
    keys = [ChunkKey("b", 2), ChunkKey("a", 10), ChunkKey("b", 1)]
    assert sorted(keys) == [ChunkKey("a", 10), ChunkKey("b", 1), ChunkKey("b", 2)]
