"""Group near byte ranges so that one read serves many; called by `read_ranges` of each adapter.

A leased chunk asks for up to 128 lines that mostly lie side by side. One read per line would cost a
system call or an HTTP request each; one read over all of them could span a whole file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lowtide import limits


@dataclass(slots=True)
class Span:
    """One read: bytes `start` to `end` (exclusive), and the positions of the ranges in it."""

    start: int
    end: int
    members: list[int] = field(default_factory=list)


def coalesce(ranges: Sequence[tuple[int, int]]) -> list[Span]:
    """Spans that cover all `(offset, length)` ranges, by rising offset; the input order is free.

    Ranges join when less than `limits.BLOB_RANGE_GAP_BYTES` lies between them and the span stays
    within `limits.BLOB_SPAN_BYTES_MAX`; a range longer than that has a span of its own.
    """
    spans: list[Span] = []
    reached = gap_end = span_end = -1  # of the last span: its end, and how far it may still grow
    for position in sorted(range(len(ranges)), key=ranges.__getitem__):
        start, length = ranges[position]
        end = start + length
        if start >= gap_end or max(reached, end) > span_end:
            spans.append(Span(start, end))
            reached, span_end = end, start + limits.BLOB_SPAN_BYTES_MAX
        elif end > reached:
            spans[-1].end = reached = end
        gap_end = reached + limits.BLOB_RANGE_GAP_BYTES
        spans[-1].members.append(position)
    return spans


def slices(
    span: Span, data: bytes, ranges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, bytes]]:
    """`(position, bytes)` of each asked range in what was read for its span."""
    for position in span.members:
        start, length = ranges[position]
        yield position, data[start - span.start : start - span.start + length]
