"""Final outcomes between an answer and its commit.

The dispatcher adds them, the committer takes all that gathered and packs it into a segment.
Invariant: `uncommitted_bytes` counts whatever no commit has stored yet, so that dispatch can stop
when results cannot be written away fast enough.
"""

from collections.abc import Callable

from lowtide import limits
from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.batches.segment import Finished

Gathered = dict[tuple[ChunkKey, int], list[Finished]]
"""Finished requests by chunk and the token of its lease."""


class Outcomes:
    """The outcomes of one worker that are not committed yet. `wake` asks for a commit now."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.uncommitted_bytes = 0
        self._gathered: Gathered = {}
        self._packed_bytes = 0
        self._full_at = limits.SEGMENT_BYTES_MAX

    def add(self, key: ChunkKey, token: int, finished: Finished) -> None:
        """Adds an outcome to the next commit."""
        self._gathered.setdefault((key, token), []).append(finished)
        before = self.uncommitted_bytes
        self.uncommitted_bytes = after = before + len(finished.output)
        if before < self._full_at <= after:
            self.wake()

    @property
    def leases(self) -> tuple[tuple[ChunkKey, int], ...]:
        """The leases, with tokens, of the chunks that have gathered outcomes."""
        return tuple(self._gathered)

    def take(self) -> Gathered:
        """Removes and returns all that gathered; `packed` follows at once."""
        gathered, self._gathered = self._gathered, {}
        return gathered

    def packed(self, size: int) -> None:
        """Records that a segment of so many bytes, and nothing else, waits to be stored."""
        self.uncommitted_bytes = self._packed_bytes = size
        self._full_at = size + limits.SEGMENT_BYTES_MAX

    def stored(self) -> None:
        """Records that the segment is committed."""
        self.uncommitted_bytes -= self._packed_bytes
        self._packed_bytes, self._full_at = 0, limits.SEGMENT_BYTES_MAX
