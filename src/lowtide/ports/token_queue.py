"""The port to planned batches that wait until enqueued tokens of their organization are free.

The rules at the head of ports/store.py hold here, too. Contract: a queue is in the order of
priority (higher first), creation and id; who is let in follows from `core.accounts.token_queue`,
decided and done in one transaction that locks the organization, so any number of processes may ask
at once, and one that dies has let each batch in or not. A batch that leaves `validating` in another
way leaves the queue.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from lowtide.core.accounts.token_queue import QueuedBatch, TokenDecision


class TokenQueue(msgspec.Struct, frozen=True):
    """The queue of one organization, and what is enqueued of each model."""

    batches: Sequence[QueuedBatch] = ()
    enqueued: Mapping[str, int] = {}


class TokenQueueStore(Protocol):
    """Queues of organizations."""

    async def owners(self) -> Mapping[str, str]:
        """The organizations whose batches wait, each with a project of its own that has one."""

    async def queue(self, organization_id: str) -> TokenQueue:
        """The queue as it is."""

    async def let_in(
        self, organization_id: str, enqueued_tokens_max: int, now: datetime
    ) -> TokenDecision:
        """Event `planned` for those whose turn it is and for which there is room; which. One that
        asks alone for more than the bound, since that was lowered, goes back to validation, which
        refuses it.
        """
