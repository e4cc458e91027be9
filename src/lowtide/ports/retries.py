"""The port to trees of retries: which batches run over one input, and which of its lines each had.

The rules at the head of ports/store.py hold here, too. Contract: of one tree at most one retry is
unfinished at a time, however many are asked for at the same instant; what a retry covers was
decided from the very batches that its tree then had, all of them ended.
"""

from collections.abc import Collection, Mapping
from typing import Literal, Protocol

import msgspec

from lowtide.core.accounts.batch_quota import NO_QUOTA, BatchQuota
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.failures import FailureGroup
from lowtide.core.idempotency.request_key import RequestKey

LineSetKind = Literal["covered", "failed", "succeeded"]
"""covered: the lines that a retry was made for. failed: those without success of an ended batch,
with their codes. succeeded: those with success of an ended retry."""


class BatchEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an ended batch's lines, as packed by `core.batches.line_sets`; `succeeded`
    of a retry alone. `failures`: all groups of its failures, counted anew."""

    failed: bytes
    succeeded: bytes | None = None
    failures: tuple[FailureGroup, ...] = ()


class RetryConflict(Exception):
    """The retry was not added. `unfinished` is the retry of its tree that has not ended; None: the
    tree has batches that its coverage was not decided from."""

    def __init__(self, unfinished: str | None) -> None:
        super().__init__(unfinished or "the tree has changed")
        self.unfinished = unfinished


class RetryStore(Protocol):
    """Trees of retries."""

    async def tree(self, project_id: str, root_id: str) -> list[Batch]:
        """The first batch of the tree and its retries, in the order in which they were made."""

    async def trees(self, project_id: str, root_ids: Collection[str]) -> dict[str, list[Batch]]:
        """The same of many at once, by the first batch's id; those of none are missing."""

    async def add(
        self,
        batch: Batch,
        covered: bytes | None,
        seen: int,
        quota: BatchQuota = NO_QUOTA,
        key: RequestKey | None = None,
    ) -> Batch:
        """Inserts the retry and the set of the lines that it covers, None for the whole file.
        `seen`: how many batches of the tree that set was decided from. `key`: as in
        `BatchStore.add`. Raises RetryConflict, BatchQuotaReached, KeyTaken."""

    async def line_sets(self, batch_ids: list[str], kind: LineSetKind) -> Mapping[str, bytes]:
        """The sets by batch; one that has none of that kind is missing."""

    async def unexecuted(self, batch_ids: list[str]) -> Mapping[str, int]:
        """How many failed lines of each ended batch no engine saw, as `UnexecutedCode` says; one
        that has none is missing."""

    async def failures(self, batch_id: str) -> tuple[FailureGroup, ...]:
        """The groups of its failures so far, `FAILURE_SHAPES_MAX` and one more at most."""
