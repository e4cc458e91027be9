"""What tests of a store say in one word: a file, a batch, a claim, a commit, an end.

Used by the store's contract suites and property tests. A `StoreFixture` is one store and a
hand-turned clock; its ids are numbered, so that a failure names what it means.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from lowtide.core.accounts.money import ModelPrices
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, Organization, Project
from lowtide.core.accounts.token_queue import PlanQueued, TokenLimitReached
from lowtide.core.batches.batch import Batch, Dialect
from lowtide.core.batches.chunk import ChunkKey, ChunkLease
from lowtide.core.batches.plan import ChunkSpec, ModelTotals
from lowtide.core.batches.segment import Finished, Slice, encode_segment
from lowtide.core.execution.records import CommitReceipt, GroupCommit
from lowtide.core.files.file import File
from lowtide.core.usage import NO_USAGE, Usage
from lowtide.ports.store import OutputInfo, Store
from lowtide.ports.work import TaskLease

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TTL_S = 30.0
DAY_S = 24 * 3600
PER_ANSWER = Usage(input_tokens=10, cached_tokens=4, output_tokens=5, reasoning_tokens=2)


class StoreFixture:
    """One store, and the operations that tests do on it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = NOON
        self.prices: Mapping[str, ModelPrices] = {}
        self._projects: set[str] = set()
        self._making_projects = asyncio.Lock()
        self._number = count(1)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def fresh(self, prefix: str) -> str:
        return f"{prefix}{next(self._number):06d}"

    # ---- tenants

    async def organization(self, **rest: Any) -> Organization:
        id = self.fresh("org_")
        organization = Organization(id=id, name=id, created_at=self.now, **rest)
        await self.store.tenants.add_organization(organization)
        return organization

    async def project(self, id: str, organization_id: str = DEFAULT_ORGANIZATION) -> str:
        """Make the project, unless it is there; its id."""
        async with self._making_projects:
            if id not in self._projects and await self.store.tenants.project(id) is None:
                project = Project(
                    id=id, organization_id=organization_id, name=id, created_at=self.now
                )
                assert await self.store.tenants.add_project(project)
            self._projects.add(id)
        return id

    # ---- files and batches

    async def file(
        self,
        *,
        project: str = "p1",
        purpose: str = "batch",
        pending: bool = False,
        expires_at: datetime | None = None,
    ) -> File:
        await self.project(project)
        file_id = self.fresh("file-")
        file = File(
            id=file_id,
            project_id=project,
            purpose=purpose,
            filename="input.jsonl",
            status="pending" if pending else "uploaded",
            dialect="openai",
            created_at=self.now,
            expires_at=expires_at,
            bytes=0 if pending else 1000,
            lines=0 if pending else 10,
            sha256="" if pending else "ab" * 32,
            blob_key="" if pending else f"files/{file_id}",
        )
        await self.store.files.add(file)
        return file

    def batch_record(
        self,
        file: File,
        *,
        priority: int = 0,
        window_s: int = DAY_S,
        dialect: Dialect = "openai",
        output_expires_after_s: int | None = None,
        endpoint: str = "/v1/chat/completions",
        deletes_input: bool | None = None,
    ) -> Batch:
        return Batch(
            id=self.fresh("batch_"),
            project_id=file.project_id,
            user_id="u1",
            dialect=dialect,
            input_file_id=file.id,
            input_bytes=file.bytes,
            endpoint=endpoint,
            completion_window_s=window_s,
            metadata={"night": "first"},
            priority=priority,
            created_at=self.now,
            expires_at=self.now + timedelta(seconds=window_s),
            output_expires_after_s=output_expires_after_s,
            deletes_input=deletes_input,
        )

    async def validating(
        self, *, file: File | None = None, project: str = "p1", **rest: Any
    ) -> Batch:
        file = file or await self.file(project=project)
        batch = self.batch_record(file, **rest)
        digest = self.fresh("digest")
        return await self.store.batches.add(batch, digest=digest, repeat=False, since=self.now)

    async def plan(
        self,
        lease: TaskLease,
        *chunks: tuple[str, int],
        tokens_each: int = 100,
        tokens_max: int = 10**9,
        queues: bool = False,
    ) -> TokenLimitReached | PlanQueued | bool:
        """Commit a plan of chunks given as (model, requests)."""
        specs: list[ChunkSpec] = []
        shares: dict[str, ModelTotals] = {}
        first = 0
        for seq, (model, requests) in enumerate(chunks):
            tokens = requests * tokens_each
            specs.append(ChunkSpec(seq, model, first, requests, tokens, requests * 50))
            before = shares.get(model, ModelTotals(0, 0))
            shares[model] = ModelTotals(before.requests + requests, before.input_tokens + tokens)
            first += requests
        return await self.store.lifecycle.commit_plan(
            lease,
            plan_key=f"plans/{lease.batch.id}",
            chunks=specs,
            models=shares,
            enqueued_tokens_max=tokens_max,
            now=self.now,
            queues=queues,
        )

    async def validation(self, batch: Batch) -> TaskLease:
        lease = await self.store.lifecycle.claim_validation("v1", self.now, TTL_S)
        assert lease is not None and lease.batch.id == batch.id
        return lease

    async def running(self, *chunks: tuple[str, int], **rest: Any) -> Batch:
        """A batch in progress; by default with one chunk of four requests."""
        batch = await self.validating(**rest)
        lease = await self.validation(batch)
        assert await self.plan(lease, *(chunks or (("m", 4),))) is True
        return await self.see(batch)

    async def see(self, batch: Batch) -> Batch:
        found = await self.store.batches.get(batch.project_id, batch.id)
        assert found is not None
        return found

    # ---- work

    async def claim(
        self, limit: int = 32, *, worker: str = "w1", models: Sequence[str] = ("m",)
    ) -> list[ChunkLease]:
        return await self.store.work.claim_chunks(worker, models, limit, self.now, TTL_S)

    async def claim_one(self, *, worker: str = "w1", models: Sequence[str] = ("m",)) -> ChunkLease:
        (lease,) = await self.claim(1, worker=worker, models=models)
        return lease

    def beat(
        self,
        *slices: Slice,
        segment: str | None = None,
        held: Iterable[ChunkLease] = (),
        released: Iterable[ChunkLease] = (),
        worker: str = "w1",
    ) -> GroupCommit:
        return GroupCommit(
            worker_id=worker,
            segment_key=(segment or self.fresh("segments/")) if slices else None,
            slices=slices,
            held=tuple((lease.key, lease.token) for lease in held),
            released=tuple((lease.key, lease.token) for lease in released),
            now=self.now,
            lease_ttl_s=TTL_S,
            prices=self.prices,
        )

    async def commit(self, *slices: Slice, **rest: Any) -> CommitReceipt:
        return await self.store.work.commit_group(self.beat(*slices, **rest))

    async def settle(self, lease: ChunkLease, *, failed: int = 0) -> CommitReceipt:
        """Finish the whole chunk, its last `failed` requests with failures."""
        return await self.commit(outcomes(lease, failed=range(lease.count - failed, lease.count)))

    # ---- the end

    async def assembly(self) -> TaskLease:
        lease = await self.store.lifecycle.claim_assembly("a1", self.now, TTL_S)
        assert lease is not None
        return lease

    async def assemble(self, batch: Batch) -> Batch:
        """Finish the batch as an assembler would: what never ran goes to the error file."""
        lease = await self.assembly()
        assert lease.batch.id == batch.id
        counts = lease.batch.counts
        done = await self.store.lifecycle.finish(
            lease,
            output=result_file(batch, "out", counts.completed),
            errors=result_file(batch, "err", counts.total - counts.completed),
            now=self.now,
        )
        assert done
        return await self.see(batch)

    async def completed(self, *, failed: int = 0, **rest: Any) -> Batch:
        batch = await self.running(("m", 4), **rest)
        receipt = await self.settle(await self.claim_one(), failed=failed)
        assert receipt.settled == {batch.id}
        return await self.assemble(batch)


def outcomes(
    lease: ChunkLease,
    indices: Iterable[int] | None = None,
    *,
    failed: Iterable[int] = (),
    usage: Usage = PER_ANSWER,
) -> Slice:
    """The slice that says these requests of the chunk finished; by default all of them.

    `usage` is that of each answer.
    """
    failures = frozenset(failed)
    finished = [
        Finished(
            index=index,
            line=lease.first + index + 1,
            ok=index not in failures,
            output=b'{"answer": %d}\n' % index,
            usage=NO_USAGE if index in failures else usage,
        )
        for index in (range(lease.count) if indices is None else indices)
    ]
    _, (piece,) = encode_segment([(lease.key, lease.token, finished)])
    return piece


def result_file(batch: Batch, kind: str, lines: int) -> OutputInfo | None:
    if lines == 0:
        return None
    return OutputInfo(lines * 100, lines, "cd" * 32, f"results/{batch.id}/{kind}")


def keys(leases: Iterable[ChunkLease]) -> list[ChunkKey]:
    return [lease.key for lease in leases]
