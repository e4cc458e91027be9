"""The port to the consistency check: what rows need of the object store, and how the
store takes a loss.

Same contract as ports/store.py: each method one transaction, guarded by the states and tokens that
guard all others, so a repair may run beside workers. What it changes is the one exception to
"counters never fall": results whose bytes are gone are taken back, and their charge with them, so
that requests which run again are counted and charged once.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from lowtide.core.batches.batch import Batch, BatchError
from lowtide.core.batches.line_sets import Lines, unpack_lines
from lowtide.core.integrity.consistency import BlobRole, ChunkRow, Reference


class BatchContents(msgspec.Struct, frozen=True, kw_only=True):
    """A batch with all that its repair needs."""

    batch: Batch
    input_key: str
    chunks: tuple[ChunkRow, ...]
    covered: bytes | None = None
    """The lines that a retry was made for, packed; None: all lines of the input."""

    @property
    def lines(self) -> Lines | None:
        """Those lines. Raises LineSetError."""
        return None if self.covered is None else unpack_lines(self.covered)

    @property
    def is_leased(self) -> bool:
        """Whether a worker may still add outcomes."""
        return any(chunk.state == "leased" for chunk in self.chunks)


class RevertedResults(msgspec.Struct, frozen=True):
    """What a loss of results undid. `runs_again`: its requests wait to be run once more; else they
    are listed in the error file.
    """

    requests: int
    charge_pico: int
    runs_again: bool


class IntegrityStore(Protocol):
    """The operations of `lowtide doctor` on the store."""

    async def references(self, need: BlobRole, *, after: str, limit: int) -> list[Reference]:
        """Blobs needed for that, by key, beginning behind the key `after`."""

    async def is_needed(self, reference: Reference) -> bool:
        """Whether a row still needs the blob: rows move on while blobs are looked at."""

    async def readers(self, input_key: str) -> list[str]:
        """Batches in progress that read this input."""

    async def holders(self, segment_key: str) -> list[str]:
        """Unfinished batches with slices in this segment."""

    async def batch(self, batch_id: str) -> BatchContents | None:
        """The batch, in any state; without chunks once they were swept. None: there is none."""

    async def lose_results(
        self,
        batch_id: str,
        segments: Collection[str],
        bits: Mapping[int, bytes] | None,
        now: datetime,
        reason: BatchError | None = None,
    ) -> RevertedResults | None:
        """Takes back all slices of the batch in those segments, which are gone.

        Slices go, counters and usage fall by what they held, and the ledger gets an entry that
        undoes theirs. While the batch runs, or waits to be assembled with all its requests settled,
        `bits` (by chunk, those of the lost slices) are cleared, so that the requests run again:
        event `results_lost` where it had left `in_progress`. With `bits` None, or in a batch that
        was stopped, they never run: a batch still to be stopped gets the error `reason`.

        None, and nothing changed, when the batch has ended or `bits` are not those of its rows.
        """

    async def move_file(self, file_id: str, before: str, after: str) -> bool:
        """The file's bytes lie under the key `after`; False when they were not under `before`."""

    async def lose_file(self, file_id: str, blob_key: str, reason: BatchError) -> bool:
        """Marks the file as lost; a batch whose result it is gets the error `reason`.

        False when it is not complete under that key any more.
        """
