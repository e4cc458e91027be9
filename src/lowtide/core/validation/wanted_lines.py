"""The lines of a file that a retry runs again: the validator passes over all others, unread.

Used by the validator. Pure. Invariant: a line is let through exactly when it is in the set; behind
the last of them nothing of the file is needed.
"""

from collections.abc import Iterator

from lowtide.core.batches.line_sets import Lines
from lowtide.core.validation.line_splitter import CutLine


class WantedLines:
    """A byte for each line up to the last one that is wanted: a million lines are a megabyte."""

    def __init__(self, lines: Lines) -> None:
        self.last = int(lines[-1]) if len(lines) else 0
        self._is_wanted = bytearray(self.last + 1)
        for line in lines.tolist():
            self._is_wanted[line] = 1

    def only(self, lines: Iterator[CutLine]) -> Iterator[CutLine]:
        """The wanted ones of `lines`, all of which are consumed."""
        is_wanted, last = self._is_wanted, self.last
        return (line for line in lines if line[0] <= last and is_wanted[line[0]])
