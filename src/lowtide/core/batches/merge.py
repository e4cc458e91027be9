"""Which committed outcome stands where in the result files: a batch's lines in input order.

The assembler feeds the index of every slice (and, for a batch that ended early, the plan); `runs`
then yields the lines of one result file in input order, cut into runs of bounded size, each line
as a range of a segment or of the input. Twenty bytes a line, so a million lines sort in memory.
Pure.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from lowtide.core.batches.line_sets import Lines
from lowtide.core.batches.plan import PLAN_DTYPE, RECORD_BYTES, RecordArray
from lowtide.core.batches.segment import INDEX_RECORD_BYTES, SegmentFormatError

INPUT: Final = -1
"""`source` of a line that has no outcome: its range is in the input file."""

_INDEX: Final = np.dtype([("line", "<u4"), ("length", "<u4")])
_PLACE: Final = np.dtype(
    [("line", "<u4"), ("source", "<i4"), ("offset", "<u8"), ("length", "<u4"), ("ok", "?")]
)

ResultKind = Literal["output", "errors"]


class Run(msgspec.Struct, frozen=True):
    """Consecutive lines of a result file, in input order: `(line, source, offset, length)` each."""

    places: Sequence[tuple[int, int, int, int]]


class Merge:
    """The places of all outcomes of one batch. `source` numbers name segments, in any numbering."""

    def __init__(self) -> None:
        self._parts: list[RecordArray] = []
        self._places: RecordArray | None = None
        self.doubled = 0
        """Outcomes passed over because their line had one already; above 0 means a bug elsewhere.
        """

    def add_slice(
        self, source: int, offset: int, index: bytes, *, completed: int, failed: int
    ) -> None:
        """Adds the index of a slice that begins at `offset` of segment `source`.

        Raises SegmentFormatError when the index has not `completed + failed` records.
        """
        if len(index) != (completed + failed) * INDEX_RECORD_BYTES:
            raise SegmentFormatError(f"index of {completed + failed} lines has {len(index)} bytes")
        records = np.frombuffer(index, _INDEX)
        places = np.empty(len(records), _PLACE)
        places["line"] = records["line"]
        places["source"] = source
        places["length"] = records["length"]
        ends = np.cumsum(records["length"], dtype=np.uint64) + np.uint64(offset)
        places["offset"] = ends - records["length"]
        places["ok"] = np.arange(len(records)) < completed
        self._parts.append(places)

    def add_unexecuted(self, plan: bytes) -> None:
        """Adds every request of the plan that has no outcome in a slice. Call it
        after the last `add_slice`.
        """
        records = np.frombuffer(plan[: len(plan) // RECORD_BYTES * RECORD_BYTES], PLAN_DTYPE)
        settled = np.concatenate([p["line"] for p in self._parts] or [np.empty(0, np.uint32)])
        records = records[~np.isin(records["line"], settled)]
        places = np.empty(len(records), _PLACE)
        for name in ("line", "offset", "length"):
            places[name] = records[name]
        places["source"] = INPUT
        places["ok"] = False
        self._parts.append(places)

    def count(self, kind: ResultKind) -> int:
        """The number of lines of that result file."""
        return int(np.count_nonzero(self._sorted()["ok"] == (kind == "output")))

    def lines(self, kind: ResultKind) -> Lines:
        """The numbers of that result file's lines, ascending."""
        places = self._sorted()
        return np.ascontiguousarray(places["line"][places["ok"] == (kind == "output")])

    def runs(self, kind: ResultKind, bytes_max: int) -> Iterator[Run]:
        """The lines of that result file in input order; a single larger line is
        a run of its own.
        """
        places = self._sorted()
        if (chosen := places["ok"] == (kind == "output")).sum() < len(places):
            places = places[chosen]  # else it is all of them, and no copy is needed
        ends = np.cumsum(places["length"], dtype=np.uint64)
        start, before = 0, 0
        while start < len(places):
            stop = int(np.searchsorted(ends, before + bytes_max, side="right"))
            stop = max(stop, start + 1)
            cut = places[start:stop]
            columns = (cut[name].tolist() for name in ("line", "source", "offset", "length"))
            yield Run(list(zip(*columns, strict=True)))
            start, before = stop, int(ends[stop - 1])

    def _sorted(self) -> RecordArray:
        if self._places is None:
            merged = np.concatenate(self._parts) if self._parts else np.empty(0, _PLACE)
            self._parts = []  # before the sort, which takes as much again
            order = np.argsort(merged["line"], kind="stable")
            lines = merged["line"][order]
            order = order[np.append(True, lines[1:] != lines[:-1])[: len(lines)]]
            self.doubled = len(merged) - len(order)
            self._places = merged[order]
        return self._places
