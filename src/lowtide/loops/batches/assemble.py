"""Aggregation: committed segments to one output and one error file, in input order.

Claims a batch that is settled, expired, cancelled or without its input, and has no leased chunk
left. How the files are made is service/batches/assembly.py; requests that never ran are written to
the error file as `batch_expired`, `batch_cancelled` or `input_lost`. The committed slices do not
change any more, so assembling twice gives the same bytes: a crash in between costs only time.
"""

from datetime import datetime

import structlog

from lowtide import limits
from lowtide.core.batches.batch import Batch, error_file_id, output_file_id
from lowtide.loops.batches.task_lease import TaskRenewal, TaskRunner
from lowtide.ports.blobs import BlobNotFound, Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import LifecycleStore, ResultStore
from lowtide.ports.work import TaskLease
from lowtide.service.batches.assembly import Assembly

log = structlog.get_logger(__name__)


class AssembleLoop:
    """Takes one batch at a time."""

    def __init__(
        self,
        worker_id: str,
        store: LifecycleStore,
        results: ResultStore,
        blobs: Blobs,
        clock: Clock,
        *,
        lease_ttl_s: float = limits.LEASE_TTL_S,
        name: str = "assemble",
        bytes_max: int | None = None,
    ) -> None:
        """`bytes_max`: it takes no batch with a larger input; None takes all."""
        self._worker_id = worker_id
        self._store = store
        self._results = results
        self._blobs = blobs
        self._clock = clock
        self._lease_ttl_s = lease_ttl_s
        self.name = name
        self._bytes_max = bytes_max
        self._tasks = TaskRunner(store, clock)

    @property
    def error(self) -> str | None:
        """Why the last files could not be written; None when they were."""
        return self._tasks.error

    async def tick(self, now: datetime) -> datetime | None:
        claimed = self._store.claim_assembly(
            self._worker_id, now, self._lease_ttl_s, bytes_max=self._bytes_max
        )
        return await self._tasks.run(claimed, self._assemble, now)

    async def _plan(self, batch: Batch) -> bytes:
        """The plan's bytes, empty where there is none. Raises BlobNotFound where it is lost and
        requests have not run: nothing else knows which."""
        if batch.plan_key is None:
            return b""
        try:
            return await self._blobs.read(batch.plan_key)
        except BlobNotFound:
            if batch.counts.settled < batch.counts.total:
                raise
            return b""

    async def _assemble(self, lease: TaskLease) -> None:
        batch = lease.batch
        job = Assembly(self._results, self._blobs, batch, lease.input_key)
        await job.load()
        plan = await self._plan(batch)
        job.use_plan(plan)
        if batch.counts.settled < batch.counts.total:
            job.add_unexecuted(plan)
        renewal = TaskRenewal(self._store, lease, self._clock, self._lease_ttl_s)
        output_key = f"results/{output_file_id(batch.id)}-{lease.token}"
        errors_key = f"results/{error_file_id(batch.id)}-{lease.token}"
        output = await job.write("output", output_key, renewal.renew_if_due)
        errors = await job.write("errors", errors_key, renewal.renew_if_due)
        end = job.end() if batch.flex is None else None
        done = await self._store.finish(
            lease, output=output, errors=errors, now=self._clock.now(), end=end
        )
        log.info(
            "batch.assembled" if done else "assembly.given_up",
            batch=batch.id,
            completed=output.lines if output else 0,
            failed=errors.lines if errors else 0,
        )
