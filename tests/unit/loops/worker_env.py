"""A dispatcher and its committer over a real store, with an engine and a clock in our hands."""

import asyncio
from collections.abc import Sequence

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.segment import decode_index
from lowtide.core.bodies.body_rules import BodyRules
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.scheduling.operating_hours import OperatingHours
from lowtide.loops.batches.assemble import AssembleLoop
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.dispatch.chunks import ChunkClaims, ChunkReader
from lowtide.loops.dispatch.commit import Committer
from lowtide.loops.dispatch.dispatch import Dispatcher
from lowtide.loops.dispatch.leasing import Leasing
from lowtide.loops.dispatch.outcomes import Outcomes
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import Store
from testkit.fake_engine import PATIENCE_S, FakeEngine
from testkit.faults import faulty_blobs, faulty_work
from testkit.manual_clock import ManualClock
from testkit.manual_worker import ManualWorker

MODEL = "test-model"
CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"


def upstream(engine: FakeEngine, window: int = 4, models: Sequence[str] = (MODEL,)) -> Upstream:
    replica = Replica(engine.url, frozenset(models), window)
    return Upstream(replica, engine, {model: model for model in models}, BodyRules(), 600.0)


class WorkerEnv:
    """One worker, ticked by hand."""

    def __init__(self, store: Store, blobs: Blobs, window: int = 4) -> None:
        self.clock = ManualClock()
        self.store = store
        self.real_blobs = blobs
        self.blobs = faulty_blobs(blobs)
        self.work = faulty_work(store.work)
        self.engine = FakeEngine()
        self.upstream = upstream(self.engine, window)
        self.hand = ManualWorker(store, blobs, self.clock)
        self.woken = {"commit": 0, "dispatch": 0, "settled": 0}
        self._ids = 0
        self.start()

    def start(self, upstreams: Sequence[Upstream] | None = None) -> None:
        """A fresh worker, as after a restart."""
        self.hours: dict[str, OperatingHours] = {}
        self.upstreams = [self.upstream] if upstreams is None else upstreams
        leasing = Leasing(
            ChunkClaims("w", self.work, limits.LEASE_TTL_S),
            ChunkReader(Dispatch(), self.blobs, self.store.lifecycle.lose_input),
            self.upstreams,
            lambda: self.hours,
        )
        outcomes = Outcomes(lambda: self._wake("commit"))
        self.dispatcher = Dispatcher(
            leasing, outcomes, self.clock, lambda: self._wake("dispatch"), lambda: 0.5
        )
        self.committer = Committer(
            "w",
            self.work,
            self.blobs,
            self._new_id,
            outcomes,
            self.dispatcher,
            on_settled=lambda: self._wake("settled"),
        )

    @property
    def replica(self) -> Replica:
        return self.upstream.replica

    async def batch(self, requests: int, endpoint: str = CHAT) -> Batch:
        """A batch in progress with that many requests."""
        self._ids += 1
        file = await self.hand.upload(requests)
        batch = await self.hand.submit(file, f"batch_{self._ids}", endpoint=endpoint)
        await self.hand.plan()
        return batch

    async def see(self, batch: Batch) -> Batch:
        found = await self.store.batches.get(batch.project_id, batch.id)
        assert found is not None
        return found

    async def dispatch(self) -> float | None:
        """One tick of the dispatcher; seconds until it wants the next."""
        due = await self.dispatcher.tick(self.clock.now())
        return None if due is None else (due - self.clock.now()).total_seconds()

    async def beat(self) -> None:
        await self.committer.tick(self.clock.now())

    async def flights_ended(self) -> None:
        """Wait until every slot has run out of work."""
        async with asyncio.timeout(PATIENCE_S):
            while self.dispatcher._slots.tasks:
                await asyncio.wait(list(self.dispatcher._slots.tasks))
                await asyncio.sleep(0)  # their callbacks

    async def pass_time(self, seconds: float) -> None:
        """Ticks, commits and trials of so many seconds."""
        end_s = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end_s:
            await self.dispatch()
            await self.flights_ended()
            async with asyncio.timeout(PATIENCE_S):
                while trials := list(self.dispatcher._trials.under_way):
                    await asyncio.wait(trials)
                    await asyncio.sleep(0)  # their callbacks
            await self.beat()
            self.clock.advance(0.5)

    async def work_off(self) -> None:
        """Dispatch and commit until nothing is left to lease."""
        self.dispatcher.announce()
        for _ in range(1000):
            await self.dispatch()
            await self.flights_ended()
            await self.beat()
            if not self.dispatcher.held():
                await self.dispatch()
                if not self.dispatcher.held():
                    return
            self.clock.advance(1.0)
        raise AssertionError("the work does not end")

    async def assemble(self) -> None:
        """One tick of the assembler."""
        lifecycle, results = self.store.lifecycle, self.store.results
        await AssembleLoop("w", lifecycle, results, self.real_blobs, self.clock).tick(
            self.clock.now()
        )

    async def committed_lines(self, batch: Batch) -> list[int]:
        """Line numbers of all committed outcomes, in the order of commit."""
        lines = []
        for row in await self.store.results.slices(batch.id):
            count = row.completed + row.failed
            index = await self.real_blobs.read(
                row.segment_key, row.offset + row.ok_bytes + row.failed_bytes, 8 * count
            )
            entries = decode_index(
                index, offset=row.offset, completed=row.completed, failed=row.failed
            )
            lines += [entry.line for entry in entries]
        return lines

    def _new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids}"

    def _wake(self, name: str) -> None:
        self.woken[name] += 1


def many_bytes(share: float) -> bytes:
    """An answer of that share of SEGMENT_BYTES_MAX."""
    return b'{"choices":[{"text":"%b"}]}' % (b"x" * int(limits.SEGMENT_BYTES_MAX * share))
