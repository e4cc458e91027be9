"""Lets batches that waited for enqueued tokens begin, as requests of others finish.

The store decides and does it in one transaction under a lock on the organization, so this loop
needs no lease: it runs in each worker, and whichever comes first lets a batch in.
"""

from datetime import datetime, timedelta

import structlog

from lowtide import limits
from lowtide.loops.batches.task_lease import Wake
from lowtide.ports.token_queue import TokenQueueStore
from lowtide.service.accounts.quotas import Quotas

log = structlog.get_logger(__name__)


class TokenQueueLoop:
    """Asks for each organization whose batches wait, by the limit that it has now."""

    name = "token-queue"

    def __init__(self, queues: TokenQueueStore, quotas: Quotas, wake: Wake) -> None:
        self._queues = queues
        self._quotas = quotas
        self._wake = wake

    async def tick(self, now: datetime) -> datetime | None:
        for organization_id, project_id in (await self._queues.owners()).items():
            most = (await self._quotas.of(project_id)).enqueued_tokens_per_model
            done = await self._queues.let_in(organization_id, most, now)
            if done.let_in:
                log.info("batches.let_in", batches=done.let_in)
                self._wake("dispatch")
            if done.too_large:
                self._wake("validate")
        return now + timedelta(seconds=limits.TOKEN_QUEUE_POLL_S)
