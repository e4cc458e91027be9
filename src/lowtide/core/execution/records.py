"""What a group commit touches, as the store keeps it and as the commit leaves it.

The store makes the first of its rows, under lock, and writes the second; settlement.py decides in
between. A worker's commit and its receipt stand here, too, for they are what goes in and what comes
out. All of it is plain values.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from lowtide.core.accounts.ledger import Cost, LedgerEntry
from lowtide.core.accounts.money import ModelPrices
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import ChunkKey, ChunkState
from lowtide.core.batches.failures import FailureGroup
from lowtide.core.batches.segment import Slice
from lowtide.core.files.file import File
from lowtide.core.usage import NO_USAGE, Usage


class GroupCommit(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's group commit. `segment_key` is the blob that holds `slices`; None when there are
    none.

    `held` are all chunks the worker still works on, for renewal; `released` it gives back (drained,
    stopped, or its replica is gone), after this commit's outcomes were counted. `prices`, by
    model, are those of this moment: the commit's successes are charged by them, a model that is
    missing is free.
    """

    worker_id: str
    segment_key: str | None
    slices: tuple[Slice, ...]
    held: tuple[tuple[ChunkKey, int], ...]
    released: tuple[tuple[ChunkKey, int], ...]
    now: datetime
    lease_ttl_s: float
    prices: Mapping[str, ModelPrices] = {}

    @property
    def claims(self) -> list[tuple[ChunkKey, int]]:
        """All chunks that it names, with the tokens that it shows for them."""
        return [*((piece.key, piece.token) for piece in self.slices), *self.held, *self.released]


class CommitReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit came to.

    `lost`: chunks of the commit that this worker does not own any more; their outcomes were
    dropped. `stopped`: batches among the held chunks that must not go on (cancelled, expired, held
    with their calls aborted). `paused`: those whose calls under way go on, and no further one.
    `settled`: batches that this commit completed (event `settled` was taken).
    """

    lost: frozenset[ChunkKey]
    stopped: frozenset[str]
    settled: frozenset[str]
    paused: frozenset[str] = frozenset()


class ChunkRecord(msgspec.Struct, frozen=True, gc=False):
    """A chunk. `input_tokens` and `cost`, in work units, are estimates of all its requests;
    `settled` are the bits that are set in `done`.
    """

    batch_id: str
    seq: int
    organization_id: str
    model: str
    state: ChunkState
    worker_id: str | None
    token: int
    lease_expires_at: datetime | None
    count: int
    input_tokens: int
    cost: float
    settled: int
    done: bytes

    @property
    def cost_per_request(self) -> float:
        return self.cost / self.count


class BatchRecord(msgspec.Struct, frozen=True):
    """A batch, with its running sums. `results_seq`: how many slices it has."""

    batch: Batch
    organization_id: str
    results_seq: int
    cost: Cost | None


class StoredSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A committed slice. `completed_before` counts the batch's successes in slices of smaller
    `seq`.
    """

    batch_id: str
    seq: int
    chunk_seq: int
    segment_key: str
    offset: int
    ok_bytes: int
    failed_bytes: int
    completed: int
    failed: int
    completed_before: int
    failed_before: int


class SettledChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk before the commit, and as the commit leaves it."""

    before: ChunkRecord
    state: ChunkState
    lease_expires_at: datetime | None
    done: bytes
    settled: int

    @property
    def requests(self) -> int:
        """The number of requests that the commit settled."""
        return self.settled - self.before.settled


class SettledModel(msgspec.Struct):
    """What a commit adds to a model of a batch, or to all of a batch."""

    settled_tokens: int = 0
    completed: int = 0
    failed: int = 0
    usage: Usage = NO_USAGE

    def add(self, piece: Slice) -> None:
        self.completed += piece.completed
        self.failed += piece.failed
        self.usage = self.usage + piece.usage


class SettledBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of a batch after the commit. `ends`: its last request settled, so that it takes the
    event `settled`.
    """

    completed: int
    failed: int
    results_seq: int
    first_settled_at: datetime
    last_settled_at: datetime
    output_file_id: str | None
    error_file_id: str | None
    usage: Usage
    cost: Cost | None
    ends: bool


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """All that a commit changes, and its receipt. `models` is by (batch, model); `failures` by
    batch, without those that have no new one."""

    chunks: list[SettledChunk]
    slices: list[StoredSlice]
    models: dict[tuple[str, str], SettledModel]
    batches: dict[str, SettledBatch]
    files: list[File]
    ledger: list[LedgerEntry]
    failures: dict[str, list[FailureGroup]]
    receipt: CommitReceipt
