"""A leased chunk, and the bitmap of its finished requests.

A chunk is up to 128 consecutive requests of a plan. Which of them are finished is one 16-byte
bitmap on the chunk's row, written in the same transaction as the results: a new owner reads it
and runs only what is missing. Invariant: a bit, once set, is never cleared (but by care, when its
result is gone), and results for a set bit are never stored.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Literal

import msgspec

from lowtide.core.batches.batch import Dialect, Status
from lowtide.limits import CHUNK_REQUESTS_MAX

DONE_BYTES = CHUNK_REQUESTS_MAX // 8
NOTHING_DONE = bytes(DONE_BYTES)


ChunkState = Literal["waiting", "paused", "leased", "done", "dropped"]


class ChunkKey(msgspec.Struct, frozen=True, order=True):
    """Which chunk: its batch and its place in the batch."""

    batch_id: str
    seq: int


class ChunkLease(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's fenced, time-limited ownership of a chunk, with all that running it needs.

    `token` grows with every lease of the chunk and fences what the holder may commit. `weight` is
    the organization's at that instant. `first` and `count` are places in the plan; bit i of `done`
    is the plan entry `first + i`.
    """

    key: ChunkKey
    token: int
    expires_at: datetime
    project_id: str
    organization_id: str = ""
    weight: float = 1.0
    dialect: Dialect
    endpoint: str
    model: str
    first: int
    count: int
    done: bytes
    plan_key: str
    input_key: str
    deadline_at: datetime


def freed_state(status: Status, holds: Collection[str]) -> ChunkState:
    """What becomes of an unfinished chunk when its lease ends."""
    if status != "in_progress":
        return "dropped"
    return "paused" if holds else "waiting"


def mark_done(done: bytes, indices: Iterable[int]) -> bytes:
    """The bitmap with those bits set, too. Raises ValueError for an index outside the chunk."""
    bits = bytearray(done)
    for index in indices:
        if not 0 <= index < CHUNK_REQUESTS_MAX:
            raise ValueError(f"index {index} is outside a chunk")
        bits[index >> 3] |= 1 << (index & 7)
    return bytes(bits)


def is_done(done: bytes, index: int) -> bool:
    return bool(done[index >> 3] & (1 << (index & 7)))


def missing(done: bytes, count: int) -> Iterator[int]:
    """Indices of the requests that have no result yet, in order."""
    return (index for index in range(count) if not is_done(done, index))


def done_count(done: bytes) -> int:
    return int.from_bytes(done, "little").bit_count()
