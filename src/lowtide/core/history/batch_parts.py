"""Which parts of a batch have run, in few parts.

Pure. The API and the console's strip show them. While a batch runs they are its requests in the
order in which they run (requests that begin alike run together), as store/history.py counts them;
once its results are written, they are the lines of the input in their order. Invariant: a part is
named by the worst that is in it, so one failure among thousands is seen.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import msgspec

State = Literal["failed", "running", "waiting", "paused", "not_run", "done"]


class BatchPart(msgspec.Struct, frozen=True, kw_only=True):
    """`count` requests from the `first` on, counted from 0, of which `settled` ended, `failed` of
    these without success. The others by what becomes of their chunks, in chunks.
    """

    first: int
    count: int
    settled: int
    failed: int
    leased: int = 0
    waiting: int = 0
    paused: int = 0
    dropped: int = 0
    place: int | None = None
    """The place, from 0, of the first failure among all failures, or else of the first result among
    all results; None where the parts are not lines in their order."""

    @property
    def state(self) -> State:
        """The worst of what is in it: a failure, else what is still to come."""
        if self.failed:
            return "failed"
        if self.leased:
            return "running"
        if self.paused:
            return "paused"
        if self.waiting:
            return "waiting"
        return "not_run" if self.dropped else "done"


def edges(lines: int, most: int) -> list[int]:
    """Where parts of so many lines begin, from 0 and evenly, at most that many; and their end."""
    parts = min(lines, most)
    return [number * lines // parts for number in range(parts + 1)] if parts else []


def in_input_order(
    places: Sequence[int], done: Sequence[int], failed: Sequence[int], *, ran: bool
) -> list[BatchPart]:
    """The parts between neighbouring `places` that have lines of the batch. `done`, `failed`: its
    lines with and without success before each place; `ran`: whether an engine saw the latter, else
    their batch ended first.
    """
    parts: list[BatchPart] = []
    for (first, *before), (_, *after) in pairwise(zip(places, done, failed, strict=True)):
        good, bad = after[0] - before[0], after[1] - before[1]
        if not good and not bad:
            continue  # blank lines, or lines that a retry left out
        parts.append(
            BatchPart(
                first=first,
                count=good + bad,
                settled=good + bad if ran else good,
                failed=bad if ran else 0,
                dropped=0 if ran else bad,
                place=before[1] if bad else before[0],
            )
        )
    return parts
