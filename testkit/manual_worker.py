"""A worker that does exactly what a test says: plans a batch, settles these lines, no more.

Drives a real store and real blobs through the port, so that a test can look at a batch in any state
without an engine, a loop or a wait. It answers with what a model would have said: `line 7`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from types import MappingProxyType

import msgspec

from lowtide.core.accounts.money import ModelPrices
from lowtide.core.batches.batch import Batch, BatchError
from lowtide.core.batches.chunk import ChunkKey, ChunkLease
from lowtide.core.batches.line import output_line_id, render_rejected, render_success
from lowtide.core.batches.line_sets import unpack_lines
from lowtide.core.batches.plan import (
    RECORD_BYTES,
    ModelTotals,
    PlanEntry,
    build_plan,
    pack_entries,
    unpack_entries,
)
from lowtide.core.batches.segment import Finished, encode_segment
from lowtide.core.execution.records import CommitReceipt, GroupCommit
from lowtide.core.files.file import File, dialect_of_purpose
from lowtide.core.usage import Usage
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.ports.work import TaskLease

WORKER_ID = "hand"
LEASE_TTL_S = 3600.0
USAGE = Usage(input_tokens=10, cached_tokens=4, output_tokens=3, reasoning_tokens=1)
"""The usage of every success."""


class ManualWorker:
    """One project's uploads, and the one worker there is."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        clock: Clock,
        project_id: str = "proj_default",
        prices: Mapping[str, ModelPrices] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._project_id = project_id
        self._prices = prices
        self._leases: dict[str, list[ChunkLease]] = defaultdict(list)
        self._lines: dict[tuple[ChunkKey, int], list[int]] = {}
        self._tag = "" if project_id == "proj_default" else f"-{project_id}"
        self.refusals: dict[int, str] = {}
        """What the engine says of a line that fails, `no` for one that is missing."""
        self.outputs: dict[int, bytes] = {}
        """Whole output lines, instead of those that would be made."""
        self._beats = 0
        self._files = 0

    async def upload(
        self, requests: int = 3, *, purpose: str = "batch", model: str = "test-model"
    ) -> File:
        """A complete input file of that many valid lines, with custom ids `r-1`, `r-2`, ..."""
        self._files += 1
        content = b"".join(_input_line(line, model) for line in range(1, requests + 1))
        file = File(
            id=f"file-in{self._files}{self._tag}",
            project_id=self._project_id,
            purpose=purpose,
            filename="input.jsonl",
            status="uploaded",
            dialect=dialect_of_purpose(purpose),
            created_at=self._clock.now(),
            bytes=len(content),
            lines=requests,
            sha256=sha256(content).hexdigest(),
            blob_key=f"inputs/in{self._files}{self._tag}",
        )
        await self._blobs.put(file.blob_key, content)
        await self._store.files.add(file)
        return file

    async def submit(
        self,
        file: File,
        batch_id: str,
        *,
        user_id: str = "user_default",
        endpoint: str = "/v1/chat/completions",
    ) -> Batch:
        """A batch of that file with an hour's window, waiting for validation."""
        now = self._clock.now()
        batch = Batch(
            id=batch_id,
            project_id=self._project_id,
            user_id=user_id,
            dialect="openai",
            input_file_id=file.id,
            input_bytes=file.bytes,
            endpoint=endpoint,
            completion_window_s=3600,
            created_at=now,
            expires_at=now + timedelta(hours=1),
        )
        return await self._store.batches.add(batch, digest=batch_id, repeat=False, since=now)

    async def plan(self, models: Mapping[str, int] | None = None) -> Batch:
        """Validate the oldest batch that waits for it.

        `models`: requests each, in the file's order; None: all are for `test-model`.
        """
        lease = await self._claim_validation()
        content = await self._blobs.read(lease.input_key)
        entries, offset = [], 0
        for line, text in enumerate(content.splitlines(keepends=True), start=1):
            entries.append(PlanEntry(line, offset, len(text) - 1, 10))
            offset += len(text)
        if lease.covered is not None:
            covered = frozenset(unpack_lines(lease.covered).tolist())
            entries = [entry for entry in entries if entry.line in covered]
        records, first = {}, 0
        for model, count in (models or {"test-model": len(entries)}).items():
            records[model] = pack_entries(entries[first : first + count])
            first += count
        plan = build_plan(records)
        key = f"plans/{lease.batch.id}-{lease.token}"
        await self._blobs.put(key, plan.data)
        shares: Mapping[str, ModelTotals] = plan.models
        done = await self._store.lifecycle.commit_plan(
            lease,
            plan_key=key,
            chunks=plan.chunks,
            models=shares,
            enqueued_tokens_max=10**9,
            now=self._clock.now(),
        )
        assert done is True, done
        return lease.batch

    async def reject(self, errors: Sequence[BatchError], total: int) -> None:
        """Fail the oldest batch that waits for validation."""
        lease = await self._claim_validation()
        assert await self._store.lifecycle.reject(lease, errors, total, self._clock.now())

    async def lease(self, batch_id: str, models: Sequence[str] = ("test-model",)) -> None:
        """Take all waiting chunks of those models, which must be this batch's."""
        claimed = await self._store.work.claim_chunks(
            WORKER_ID, models, 1000, self._clock.now(), LEASE_TTL_S
        )
        for held in claimed:  # read now, as a worker does: the plan may be lost later
            self._lines[held.key, held.token] = await self._lines_of(held)
        self._leases[batch_id] += claimed

    async def settle(
        self, batch_id: str, *, ok: Sequence[int] = (), bad: Sequence[int] = ()
    ) -> CommitReceipt:
        """One commit: those lines succeeded or failed, in that order; the other chunks are kept."""
        if not self._leases[batch_id]:
            await self.lease(batch_id)
        chunks = []
        for held in self._leases[batch_id]:
            lines = self._lines[held.key, held.token]
            finished = [
                Finished(
                    lines.index(line), line, good, self._output(held, line, good), _usage(good)
                )
                for good, these in ((True, ok), (False, bad))
                for line in these
                if line in lines
            ]
            if finished:
                chunks.append((held.key, held.token, finished))
        data, slices = encode_segment(chunks)
        self._beats += 1
        key = f"segments/{self._beats}{self._tag}"
        await self._blobs.put(key, data)
        return await self._store.work.commit_group(
            GroupCommit(
                worker_id=WORKER_ID,
                segment_key=key,
                slices=tuple(slices),
                held=tuple((held.key, held.token) for held in self._leases[batch_id]),
                released=(),
                now=self._clock.now(),
                lease_ttl_s=LEASE_TTL_S,
                prices=self._prices,
            )
        )

    def _output(self, held: ChunkLease, line: int, good: bool) -> bytes:
        if (output := self.outputs.get(line)) is not None:
            return output
        request_id, custom_id = output_line_id(held.key.batch_id, line), f"r-{line}"
        if good:
            body = msgspec.json.encode({"model": held.model, "text": f"line {line}"})
            return render_success(held.dialect, request_id, custom_id, 200, body)
        words = self.refusals.get(line, "no")
        return render_rejected(
            held.dialect,
            request_id,
            custom_id,
            status=400,
            body=msgspec.json.encode({"error": {"message": words}}),
            code="request_rejected",
            message=words,
        )

    async def _lines_of(self, held: ChunkLease) -> list[int]:
        records = await self._blobs.read(
            held.plan_key, held.first * RECORD_BYTES, held.count * RECORD_BYTES
        )
        return [entry.line for entry in unpack_entries(records)]

    async def let_go(self, batch_id: str) -> None:
        """Gives back what is leased, as a worker does when its batch was stopped."""
        held = tuple((lease.key, lease.token) for lease in self._leases.pop(batch_id, []))
        await self._store.work.commit_group(
            GroupCommit(
                worker_id=WORKER_ID,
                segment_key=None,
                slices=(),
                held=(),
                released=held,
                now=self._clock.now(),
                lease_ttl_s=LEASE_TTL_S,
            )
        )

    async def _claim_validation(self) -> TaskLease:
        lease = await self._store.lifecycle.claim_validation(
            WORKER_ID, self._clock.now(), LEASE_TTL_S
        )
        assert lease is not None, "no batch waits for validation"
        return lease


def _input_line(line: int, model: str) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": f"line {line}"}]}
    request = {"custom_id": f"r-{line}", "method": "POST", "url": "/v1/chat/completions"}
    return msgspec.json.encode({**request, "body": body}) + b"\n"


def _usage(good: bool) -> Usage:
    return USAGE if good else Usage()
