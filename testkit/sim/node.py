"""One process of Lowtide: the verbs, the loops, or both, over this world's database and disk.

A `Node` is one life. It is wired as `wiring` does it: the same `Worker`, the same services, the
same order of start and stop. What differs is given from outside: clock, ids, chance, engines.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final, TypeVar, cast

from lowtide import limits
from lowtide.config import DispatchSettings, LimitSettings, Settings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.bodies.body_rules import BodyRules
from lowtide.core.dispatch.replica import Replica
from lowtide.core.live.live import LiveAnswer
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.dispatch.outcomes import Outcomes
from lowtide.loops.local_wakeups import LocalWakeups
from lowtide.ports.blobs import BlobError
from lowtide.ports.engine import StreamingEngine
from lowtide.ports.store import Store, StoreError
from lowtide.service.live.live import LiveService
from lowtide.service.live.live_replica import LiveReplica
from lowtide.service.services import Services
from lowtide.store.sql_store import SqlStore
from lowtide.wiring.parts import Parts, parts_of
from lowtide.wiring.services import build_services, standings_of
from lowtide.wiring.worker import Worker
from testkit.no_worker import NoWorker
from testkit.sim.engines import EngineMachine, NetworkedEngine
from testkit.sim.fault_kinds import FaultKind
from testkit.sim.faults import PortFaults
from testkit.sim.invariants import InvariantCheck, Violation, watched
from testkit.sim.memory_blobs import BlobDisk, MemoryBlobs
from testkit.sim.owners import Owners
from testkit.sim.process import Process
from testkit.sim.receivers import Receivers
from testkit.sim.scenario import Scenario
from testkit.sim.trace import Trace

T = TypeVar("T")

EPOCH: Final = datetime(2026, 11, 21, 9, tzinfo=UTC)
"""Second 0 of every world."""
_REPLY_LATE_S: Final = 5.0


class Unreachable(Exception):
    """The client got no answer: no process was there, or the answer was lost on the way."""


class SimClock:
    """Virtual time as one process sees it (ports/clock.py)."""

    def __init__(self, process: Process | None) -> None:
        self._process = process

    def now(self) -> datetime:
        skew_s = self._process.skew_s if self._process else 0.0
        return EPOCH + timedelta(seconds=self.monotonic() + skew_s)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


@dataclass(frozen=True, slots=True)
class Ground:
    """What all processes of a world stand on, and what outlives them."""

    scenario: Scenario
    random: Random
    faults: PortFaults
    trace: Trace
    disk: BlobDisk
    engines: Sequence[EngineMachine]
    watch: InvariantCheck
    owners: Owners
    receivers: Receivers

    def new_id(self, prefix: str) -> str:
        return f"{prefix}{self.random.getrandbits(96):024x}"

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(
            ModelEntry(
                id=f"m{number}",
                input_price=Decimal("0.88") + number,
                cached_input_price=Decimal("0.1") if number else None,
                output_price=Decimal("1.5"),
            )
            for number in range(self.scenario.models)
        )


def _limits_of(scenario: Scenario) -> LimitSettings:
    if scenario.tokens_max is None:
        return LimitSettings()
    return LimitSettings(enqueued_tokens_per_model=scenario.tokens_max, over_limit="queue")


class Node:
    """One life of a process. `services` are there once it is up."""

    def __init__(
        self, ground: Ground, name: str, store: SqlStore, *, serves_http: bool, loops: bool
    ):
        self.process = Process(name)
        self.up = False
        self._ground = ground
        self._store = store
        self.serves_http = serves_http
        self._loops = loops
        self._term = asyncio.Event()
        self._ended = asyncio.get_running_loop().create_future()
        self.process.on_death.append(self._end)
        self.clock = SimClock(self.process)
        self.blobs = MemoryBlobs(ground.disk, ground.faults.blobs)
        self.services: Services

    async def live(self) -> None:
        """Starts and runs until told to stop or killed; returns when the process is gone."""
        self.process.spawn(self._main(), f"{self.process.name} main").add_done_callback(self._gone)
        await self._ended

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._term.set()

    async def call(self, work: Callable[["Node"], Awaitable[T]]) -> T:
        """Does `work` in this process, for a client. Raises Unreachable, and what `work` raises.

        A client that gives up does not end the work: the process may never learn of it.
        """
        if not (self.serves_http and self.up):
            raise Unreachable("connection refused")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def hang_up() -> None:
            if not answer.done():
                answer.set_exception(Unreachable("connection reset"))

        async def serve() -> T:
            return await work(self)

        def reply(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                hang_up()
            elif answer.done():
                pass  # the client was cut off before, or has given up
            elif (error := task.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())

        self.process.on_death.append(hang_up)
        served = self.process.spawn(serve(), "request")
        served.add_done_callback(_heard)
        served.add_done_callback(lambda task: self._carry(lambda: reply(task), hang_up))
        try:
            return await answer
        finally:
            self.process.on_death.remove(hang_up)

    def _carry(self, reply: Callable[[], None], hang_up: Callable[[], None]) -> None:
        """Carries a reply over the network: it arrives, or late, or never."""
        faults, trace = self._ground.faults, self._ground.trace
        if faults.happens(faults.rates.reply_lost):
            trace.fault(FaultKind.REPLY_LOST)
            hang_up()
        elif faults.happens(faults.rates.reply_late):
            trace.fault(FaultKind.REPLY_LATE)
            after_s = self._ground.random.expovariate(1 / _REPLY_LATE_S)
            asyncio.get_running_loop().call_later(after_s, reply, context=Context())
        else:
            reply()

    async def _main(self) -> None:
        async with AsyncExitStack() as stack:
            store = self._store
            await store.open()
            upstreams = self._upstreams()
            worker = self._worker(upstreams) if self._loops else None
            parts = self._parts(store)
            standings = standings_of(parts, worker or NoWorker(self.process.name))
            self.services = build_services(
                parts,
                worker or NoWorker(self.process.name),
                self._live_service(upstreams, parts),
                standings,
                b"",
            )
            await standings.now()
            if self._ground.scenario.workers == 1 and self._loops:
                await store.work.release_worker("local")
                await store.outbox.release("local")
            if worker is not None:
                await stack.enter_async_context(worker.running())
            self.up = True
            await self._term.wait()
            self.up = False

    async def answer_live(self, body: bytes) -> LiveAnswer:
        """One live chat completion, not streamed. Raises LowtideError."""
        live, endpoint = self.services.live, "/v1/chat/completions"
        admitted = await live.admit(endpoint, body, project_id="proj_default", key_id="sim")
        async with live.open(admitted) as answer:
            assert isinstance(answer, LiveAnswer)
            return answer

    def _upstreams(self) -> list[Upstream]:
        ground, scenario = self._ground, self._ground.scenario
        return [
            Upstream(
                Replica(machine.url, frozenset(ground.catalogue.entries), scenario.window),
                NetworkedEngine(machine, ground.owners.called),
                {},
                BodyRules(),
                scenario.attempt_timeout_s,
            )
            for machine in ground.engines
        ]

    def _parts(self, store: Store) -> Parts:
        ground, scenario = self._ground, self._ground.scenario
        dispatch = DispatchSettings(
            lease_ttl_s=scenario.lease_ttl_s, commit_interval_s=scenario.commit_interval_s
        )
        settings = Settings(dispatch=dispatch, limits=_limits_of(scenario))
        return parts_of(
            settings,
            store,
            self.blobs,
            self.clock,
            ground.catalogue,
            ground.new_id,
            ground.receivers.sender(self.process),
        )

    def _live_service(self, upstreams: Sequence[Upstream], parts: Parts) -> LiveService:
        """The live service, on connections of its own, which no worker has to own."""
        ground, timeout_s = self._ground, self._ground.scenario.attempt_timeout_s
        replicas = [
            LiveReplica(
                upstream.replica,
                cast(
                    "StreamingEngine", NetworkedEngine(machine, lambda _: None)
                ),  # none is streamed
                {},
                BodyRules(),
                timeout_s,
            )
            for upstream, machine in zip(upstreams, ground.engines, strict=True)
        ]
        return LiveService(parts.catalogue, replicas, self.clock, parts.quotas)

    def _worker(self, upstreams: list[Upstream]) -> Worker:
        ground, scenario = self._ground, self._ground.scenario
        alone = scenario.workers == 1
        shared = None if alone else {each.replica.url: each.replica for each in upstreams}
        for replica in (shared or {}).values():
            ground.owners.list_shared(self.process, replica)
        wakeups = LocalWakeups()
        return Worker(
            self._parts(watched(self._store, ground.watch, ground.faults)),
            upstreams,
            "local" if alone else ground.new_id(f"{self.process.name}-"),
            wakeups,
            Outcomes(lambda: wakeups.wake("commit")),
            shared=shared,
            draw=ground.random.random,
        )

    def _gone(self, task: asyncio.Task[None]) -> None:
        self.up = False
        if not task.cancelled() and (error := task.exception()) is not None:
            self._ground.trace.note(f"{self.process.name} ends with {error!r}")
            if not isinstance(error, StoreError | BlobError):  # what a supervisor may try again
                self._ground.watch.fail(Violation(f"a process ended with {error!r}"))
        self.process.kill()  # what it left running ends with it

    def _end(self) -> None:
        self.up = False
        if not self._ended.done():
            self._ended.set_result(None)

    @property
    def drains_within_s(self) -> float:
        """Seconds from SIGTERM to the end, when nothing is in the way."""
        return limits.DRAIN_S * 2 + 5.0


def _heard(task: "asyncio.Task[Any]") -> None:
    """Marks the exception of a task as retrieved: the network lost it, but the API has
    answered with it.
    """
    if not task.cancelled():
        task.exception()


def uploader(content: bytes, pieces: int) -> Callable[[Node], Awaitable[Any]]:
    """The work of an upload, as the API does it."""

    async def upload(node: Node) -> Any:
        file_id = node.services.files.new_file_id()
        async with node.services.files.receive("proj_default", file_id, 0) as intake:
            size = max(1, len(content) // pieces)
            for start in range(0, len(content), size):
                await intake.write(content[start : start + size])
        return await node.services.files.keep(
            "proj_default", file_id, intake.content, filename="in.jsonl", purpose="batch"
        )

    return upload
