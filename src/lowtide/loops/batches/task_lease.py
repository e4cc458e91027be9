"""What validation and assembly share: doing a task, keeping its lease, and ending it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

from lowtide import limits
from lowtide.ports.blobs import BlobError
from lowtide.ports.clock import Clock
from lowtide.ports.store import LifecycleStore, StoreError
from lowtide.ports.wakeups import Topic
from lowtide.ports.work import TaskLease

Wake = Callable[[Topic | Literal["sweep"]], None]
"""Wakes a loop of this process by name."""


class TaskError:
    """Why a loop's last task failed: until a task succeeds, or nothing is left to be tried again.

    Without the second, a worker whose failed task went to another one would report it for ever.
    """

    def __init__(self) -> None:
        self.text: str | None = None
        self._retry_at = datetime.min.replace(tzinfo=UTC)

    def failed(self, error: BaseException, now: datetime) -> None:
        """Records a failure of the storage as the loop's error; the task is tried again later."""
        if isinstance(error, BlobError | StoreError):
            self.text = str(error)
            self._retry_at = now + timedelta(seconds=limits.TASK_RETRY_S + limits.IDLE_POLL_S)

    def succeeded(self) -> None:
        self.text = None

    def found_nothing(self, now: datetime) -> None:
        """Records that no task was to be had; a failed one would be, once its pause is over."""
        if self.text is not None and now >= self._retry_at:
            self.text = None


class TaskRunner:
    """Does one task after another, and ends the lease of one that did not finish."""

    def __init__(self, store: LifecycleStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._error = TaskError()

    @property
    def error(self) -> str | None:
        """Why the last task failed in the storage; None when it did not."""
        return self._error.text

    async def run(
        self,
        claimed: Awaitable[TaskLease | None],
        work: Callable[[TaskLease], Awaitable[None]],
        now: datetime,
    ) -> datetime:
        """Does what was claimed; returns when to claim again. Raises what the work raises.

        Cancelled: its lease is free at once, for the next process. Failed: the lease is kept a
        little longer, so that the batches behind it get their turn before it is tried again.
        Claimed at once, a batch that always fails would delay all others.
        """
        lease = await claimed
        if lease is None:
            self._error.found_nothing(now)
            return now + timedelta(seconds=limits.IDLE_POLL_S)
        try:
            await work(lease)
        except asyncio.CancelledError:
            await asyncio.shield(self._store.release_task(lease))
            raise
        except BaseException as error:
            self._error.failed(error, now)
            held = self._store.renew_task(lease, self._clock.now(), limits.TASK_RETRY_S)
            await asyncio.shield(held)
            raise
        self._error.succeeded()
        return now


class TaskRenewal:
    """Renews a task's lease when a third of it has passed."""

    def __init__(
        self, store: LifecycleStore, lease: TaskLease, clock: Clock, lease_ttl_s: float
    ) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._ttl_s = lease_ttl_s
        self._renewed_at_s = clock.monotonic()

    async def renew_if_due(self) -> bool:
        """False when the lease was lost, or the batch has left the state it was claimed in."""
        now_s = self._clock.monotonic()
        if now_s - self._renewed_at_s < self._ttl_s / 3:
            return True
        self._renewed_at_s = now_s
        return await self._store.renew_task(self._lease, self._clock.now(), self._ttl_s)
