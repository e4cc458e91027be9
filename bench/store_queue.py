"""The queue of one pool as the product runs it, in simulated time, for benchmarks of scheduling.

Batches are created, planned, claimed, committed and expired by `SqlStore`, on a SQLite file in
memory and without its thread; which batches are urgent is found by `UrgencyLoop`. Only the engines
are left out: whoever calls says when a chunk is done and what it took. Invariant: nothing here
decides what is claimed.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Final

import msgspec
import structlog
from sqlalchemy import insert

from lowtide.core.accounts.tenancy import Organization, OrganizationLimits, Project
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.chunk import ChunkLease
from lowtide.core.batches.plan import ChunkSpec, ModelTotals
from lowtide.core.batches.segment import Slice
from lowtide.core.execution.records import GroupCommit
from lowtide.core.scheduling.forecast import HourOfWeek
from lowtide.core.usage import Usage
from lowtide.loops.scheduling.urgency import UrgencyLoop
from lowtide.service.scheduling.backlog_reading import BacklogReadings
from lowtide.store.schema.schedule_tables import forecast_hours
from lowtide.store.sql_store import SqlStore
from testkit.manual_clock import ManualClock
from testkit.sim import inline_sqlite
from testkit.sim.stores import sim_folder

MODEL: Final = "m"
WORKER: Final = "w"
TTL_S: Final = 30 * 24 * 3600.0
"""Longer than any run: no lease ends here."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A batch to queue: `chunks` of `requests_each`, whose prompts are estimated to have
    `input_tokens` a chunk; `output_tokens` is the bound that its lines name in sum, 0 for none."""

    id: str
    organization_id: str
    endpoint: str
    chunks: int
    requests_each: int
    input_tokens: int
    output_tokens: int = 0
    window_s: float
    priority: int = 0


class StoreQueue:
    """One store with one model's queue."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self._segments = count(1)
        self._known: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator["StoreQueue"]:
        quiet = structlog.make_filtering_bound_logger(logging.WARNING)
        structlog.configure(wrapper_class=quiet)
        with sim_folder() as folder:
            path = str(folder / "bench.db")
            inline_sqlite.gates[path] = lambda _moment, _statement: None
            inline_sqlite.commits[path] = lambda: None
            store = SqlStore(f"sqlite+inline:///{path}")
            await store.open()
            try:
                yield cls(store)
            finally:
                with contextlib.suppress(KeyError):
                    del inline_sqlite.gates[path], inline_sqlite.commits[path]
                await store.aclose()

    async def organization(self, id: str, weight: int, now: datetime) -> None:
        """Make it, with one project of the same id, unless it is there."""
        if id in self._known:
            return
        self._known.add(id)
        limits = OrganizationLimits(weight=weight)
        tenants = self.store.tenants
        await tenants.add_organization(Organization(id=id, name=id, created_at=now, limits=limits))
        await tenants.add_project(Project(id=id, organization_id=id, name=id, created_at=now))

    async def learnt(self, hours: dict[int, HourOfWeek]) -> None:
        """Begin with these hours of the week, as earlier weeks would have left them."""
        rows = [
            {"model": MODEL, "hour_of_week": hour} | msgspec.structs.asdict(known)
            for hour, known in hours.items()
        ]
        async with self.store._db.write() as conn:
            await conn.execute(insert(forecast_hours), rows)

    async def add(self, work: Work, now: datetime) -> Batch:
        """Create the batch and commit its plan; its organization is there."""
        batch = Batch(
            id=work.id,
            project_id=work.organization_id,
            user_id="u",
            dialect="openai",
            input_file_id="file-1",
            input_bytes=1,
            endpoint=work.endpoint,
            completion_window_s=int(work.window_s),
            priority=work.priority,
            created_at=now,
            expires_at=now + timedelta(seconds=work.window_s),
        )
        await self.store.batches.add(batch, digest=work.id, repeat=False, since=now)
        lease = await self.store.lifecycle.claim_validation(WORKER, now, TTL_S)
        assert lease is not None and lease.batch.id == work.id
        each = work.requests_each
        specs = [
            ChunkSpec(seq, MODEL, seq * each, each, work.input_tokens, each)
            for seq in range(work.chunks)
        ]
        requests = work.chunks * each
        totals = ModelTotals(requests, work.chunks * work.input_tokens, work.output_tokens)
        planned = await self.store.lifecycle.commit_plan(
            lease,
            plan_key=f"plans/{work.id}",
            chunks=specs,
            models={MODEL: totals},
            enqueued_tokens_max=10**18,
            now=now,
        )
        assert planned is True
        return msgspec.structs.replace(batch, status="in_progress")

    async def hurry(self, now: datetime) -> None:
        """What the urgency loop does every few seconds."""
        readings = BacklogReadings(self.store.capacity, ManualClock())
        await UrgencyLoop(readings, lambda _loop: None).tick(now)

    async def claim(self, chunks: int, now: datetime) -> list[ChunkLease]:
        return await self.store.work.claim_chunks(WORKER, (MODEL,), chunks, now, TTL_S)

    async def commit(
        self, slices: Sequence[Slice], now: datetime, held: Iterable[ChunkLease] = ()
    ) -> frozenset[str]:
        """The batches that this settled; `held`: chunks that are still at work."""
        receipt = await self.store.work.commit_group(
            GroupCommit(
                worker_id=WORKER,
                segment_key=f"segments/{next(self._segments)}",
                slices=tuple(slices),
                held=tuple((lease.key, lease.token) for lease in held),
                released=(),
                now=now,
                lease_ttl_s=TTL_S,
            )
        )
        return receipt.settled

    async def expire(self, now: datetime) -> list[str]:
        return await self.store.lifecycle.expire_due(now)


def slice_of(lease: ChunkLease, indices: Iterable[int], usage: Usage) -> Slice:
    """Says that these requests of the chunk succeeded, and took `usage` together."""
    done = tuple(indices)
    return Slice(
        key=lease.key,
        token=lease.token,
        offset=0,
        ok_bytes=len(done),
        failed_bytes=0,
        completed=len(done),
        failed=0,
        indices=done,
        usage=usage,
    )
