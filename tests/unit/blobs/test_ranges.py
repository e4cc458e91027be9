"""Coalescing of ranges: exact, bounded, near ones together."""

from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.blobs.ranges import coalesce, slices

GAP = limits.BLOB_RANGE_GAP_BYTES
SPAN = limits.BLOB_SPAN_BYTES_MAX

ranges_of_a_blob = st.lists(
    st.tuples(st.integers(0, 2_000_000), st.integers(0, 300_000)), max_size=40
)


def spans(*ranges: tuple[int, int]) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in coalesce(ranges)]


def test_ranges_nearer_than_the_gap_are_one_span() -> None:
    assert spans((0, 10), (10 + GAP - 1, 5)) == [(0, 10 + GAP + 4)]
    assert spans((0, 10), (10 + GAP, 5)) == [(0, 10), (10 + GAP, 15 + GAP)]


def test_a_span_stays_within_its_bound_unless_one_range_is_longer() -> None:
    assert spans((0, SPAN), (SPAN, 1)) == [(0, SPAN), (SPAN, SPAN + 1)]
    assert spans((0, 3 * SPAN)) == [(0, 3 * SPAN)]


@given(ranges_of_a_blob)
def test_each_range_gets_exactly_its_bytes_from_exactly_one_span(
    ranges: list[tuple[int, int]],
) -> None:
    blob = bytes(n * 7 % 251 for n in range(1_000)) * 2_400
    found: dict[int, bytes] = {}
    for span in coalesce(ranges):
        for position, part in slices(span, blob[span.start : span.end], ranges):
            assert position not in found
            found[position] = part
    assert found == {n: blob[start : start + size] for n, (start, size) in enumerate(ranges)}


@given(ranges_of_a_blob)
def test_no_span_outgrows_its_bound_by_joining(ranges: list[tuple[int, int]]) -> None:
    for span in coalesce(ranges):
        longest = max(ranges[position][1] for position in span.members)
        assert span.end - span.start <= max(SPAN, longest)
