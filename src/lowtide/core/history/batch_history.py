"""How fast a batch went, in at most `HISTORY_BUCKETS_MAX` buckets of one width, however long it
runs.

Pure. store/history.py keeps one `BatchHistory` for each batch and moves it on with the batch's own
counters; service/history/history.py reads it. When a batch outgrows its buckets, each two become
one of twice the width. Invariant: the buckets add up to the growth of the counters, whoever looked
and whenever: two readings of the same counters count nothing twice, and a reading that was missed
is made up for by the next.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from math import ceil
from typing import Final

import msgspec

from lowtide import limits


class BatchTotals(msgspec.Struct, frozen=True, array_like=True):
    """Counters of a batch: requests that ended well and that failed, and tokens of good answers."""

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, more: "BatchTotals") -> "BatchTotals":
        """The sum."""
        return BatchTotals(*(a + b for a, b in zip(_of(self), _of(more), strict=True)))

    def since(self, before: "BatchTotals") -> "BatchTotals":
        """The growth. A counter that fell, because results were lost, has not grown."""
        return BatchTotals(*(max(0, a - b) for a, b in zip(_of(self), _of(before), strict=True)))

    def share(self, begin: float, end: float) -> "BatchTotals":
        """The part between two shares of 1; parts that follow each other add up to the whole."""
        return BatchTotals(*(int(each * end) - int(each * begin) for each in _of(self)))

    @property
    def requests(self) -> int:
        return self.completed + self.failed

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


NOTHING: Final = BatchTotals()


class RateBucket(msgspec.Struct, frozen=True, array_like=True):
    """What was done in `index * width_s` to `(index + 1) * width_s` after the begin."""

    index: int
    done: BatchTotals


class BatchHistory(msgspec.Struct, frozen=True, kw_only=True):
    """`seen` are the counters at `seen_at`. A bucket in which nothing was done is left out."""

    begun_at: datetime
    width_s: int = limits.HISTORY_BUCKET_S
    seen_at: datetime
    seen: BatchTotals = NOTHING
    buckets: tuple[RateBucket, ...] = ()

    @classmethod
    def begin(cls, at: datetime) -> "BatchHistory":
        """The history of a batch that starts at `at`."""
        return cls(begun_at=at, seen_at=at)


class RateSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of time, and what was done in it."""

    at: datetime
    seconds: float
    done: BatchTotals


def advanced(history: BatchHistory, totals: BatchTotals, at: datetime) -> BatchHistory:
    """The history after a reading of the counters at `at`.

    What was done since the last reading is spread evenly over that time, `HISTORY_SPREAD_S` at
    most: a batch that was paused for hours did nothing meanwhile. A reading by a clock that is
    behind counts at the last reading's instant.
    """
    at = max(at, history.seen_at)
    history = _widened(history, at)
    done = {bucket.index: bucket.done for bucket in history.buckets}
    for index, more in _spread(history, totals.since(history.seen), at):
        done[index] = done.get(index, NOTHING).plus(more)
    kept = (RateBucket(index, each) for index, each in sorted(done.items()) if each != NOTHING)
    return msgspec.structs.replace(history, seen_at=at, seen=totals, buckets=tuple(kept))


def spans(history: BatchHistory, until: datetime) -> list[RateSpan]:
    """All stretches from the begin to `until`, those without work included."""
    history = _widened(history, until)
    done = {bucket.index: bucket.done for bucket in history.buckets}
    width_s, whole_s = history.width_s, _offset_s(history, until)
    needed = max(ceil(whole_s / width_s), *(index + 1 for index in done), 1)
    return [
        RateSpan(
            at=history.begun_at + timedelta(seconds=index * width_s),
            seconds=min(float(width_s), max(1.0, whole_s - index * width_s)),
            done=done.get(index, NOTHING),
        )
        for index in range(min(needed, limits.HISTORY_BUCKETS_MAX))
    ]


def _spread(
    history: BatchHistory, more: BatchTotals, at: datetime
) -> Iterator[tuple[int, BatchTotals]]:
    """The growth by bucket, in proportion to the time that each has of the span."""
    end_s, width_s = _offset_s(history, at), history.width_s
    begin_s = max(_offset_s(history, history.seen_at), end_s - limits.HISTORY_SPREAD_S)
    first, last = int(begin_s // width_s), int(end_s // width_s)
    if end_s == last * width_s and last > first:
        last -= 1  # a bucket does not have its end
    share = 0.0
    for index in range(first, last + 1):
        after = 1.0 if index == last else ((index + 1) * width_s - begin_s) / (end_s - begin_s)
        yield index, more.share(share, after)
        share = after


def _widened(history: BatchHistory, at: datetime) -> BatchHistory:
    """The history with buckets so wide that there are few enough of them until `at`."""
    while _offset_s(history, at) >= history.width_s * limits.HISTORY_BUCKETS_MAX:
        done: dict[int, BatchTotals] = {}
        for bucket in history.buckets:
            half = bucket.index // 2
            done[half] = done.get(half, NOTHING).plus(bucket.done)
        history = msgspec.structs.replace(
            history,
            width_s=2 * history.width_s,
            buckets=tuple(RateBucket(index, each) for index, each in done.items()),
        )
    return history


def _offset_s(history: BatchHistory, at: datetime) -> float:
    return max(0.0, (at - history.begun_at).total_seconds())


def _of(totals: BatchTotals) -> tuple[int, ...]:
    return totals.completed, totals.failed, totals.input_tokens, totals.output_tokens
