"""The port to batches that single calls became (service/live/flex.py).

They are batches like all others, planned, leased, settled and charged by the same methods; here is
only what is asked of them alone. Held by the store's contract suite.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from lowtide.core.accounts.batch_quota import NO_QUOTA, BatchQuota
from lowtide.core.batches.batch import Batch, Hold, Status
from lowtide.core.files.file import File
from lowtide.ports.work import TaskLease


class FlexStatus(msgspec.Struct, frozen=True):
    """How a batch stands, and how many slices of results it has. Read once a second for each call
    that waits, so it is no more than those are told.
    """

    status: Status
    holds: tuple[Hold, ...]
    slices: int


class FlexStore(Protocol):
    """What the verbs of single calls need beside the rest of the store."""

    async def add(
        self,
        file: File,
        batch: Batch,
        *,
        digest: str,
        owner: str,
        ttl_s: float,
        quota: BatchQuota = NO_QUOTA,
    ) -> TaskLease:
        """Inserts an uploaded file and the batch over it, leased to `owner` for its validation.

        The process that adds it plans it at once; when that fails, a validation loop finds it once
        the lease has ended. Raises BatchQuotaReached, however many add at the same instant.
        """

    async def unanswered(self, project_id: str, digest: str, since: datetime) -> Batch | None:
        """The newest batch of that digest, created at or after `since`, whose client never got
        its answer."""

    async def standing(self, batch_ids: Sequence[str]) -> Mapping[str, FlexStatus]:
        """The status by id of those batches that exist."""

    async def is_leased(self, batch_id: str) -> bool:
        """Whether a worker has a chunk of it."""

    async def awaited(self) -> list[Batch]:
        """Batches not ended that calls waited for, in any process."""
