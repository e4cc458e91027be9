"""One world, from its seed to its final check.

`play(seed)` draws the scenario, starts clients and processes, lets the storm blow, and then asks
for what was promised: that everything ends within `PATIENCE_S` without faults, that processes stop
when told to, that the final check passes, and that the sweeper leaves nothing behind.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

import msgspec

from lowtide import limits
from lowtide.loops.batches.housekeeping import SweepLoop
from testkit.sim import inline_sqlite
from testkit.sim.client import Insist, Intention, SimClient, draw_intention
from testkit.sim.engines import EngineMachine
from testkit.sim.evidence import Evidence
from testkit.sim.fault_injection import FaultInjection
from testkit.sim.faults import PortFaults
from testkit.sim.final_check import FinalCheck
from testkit.sim.invariants import InvariantCheck, Violation
from testkit.sim.live_calls import LiveCaller
from testkit.sim.loop import Stuck, VirtualLoop, virtual_loop
from testkit.sim.memory_blobs import BlobDisk, MemoryBlobs
from testkit.sim.node import Ground, Node, SimClock, Unreachable
from testkit.sim.owners import Owners
from testkit.sim.receivers import Receivers, pending, subscribe
from testkit.sim.scenario import Scenario, draw_scenario, scaled_limits
from testkit.sim.steering import Steerer
from testkit.sim.stores import Stores
from testkit.sim.trace import Trace

T = TypeVar("T")

_ENOUGH: Final = 0.8
"""The share of settled lines at which the storm may end."""

PATIENCE_S: Final = 900.0
"""Virtual seconds without faults after which everything has ended."""


class Played(msgspec.Struct, frozen=True):
    """What a run came to. `broken` is None when every promise was kept."""

    seed: int
    broken: str | None
    virtual_s: float
    steps: int
    commits: int
    batches: int
    lines: int
    counts: Mapping[str, int]
    """Counts of log lines, and of what clients met."""
    faults: Mapping[str, int]
    deaths: frozenset[str]
    """Awaits of the product at which a process was killed, as `loops/dispatch/commit.py:88`."""
    digest: str
    """Equal for two runs that took the same steps."""
    trace: list[str]
    took_s: Mapping[int, float] = {}
    """Seconds from the submitter's first call to the end, by number of the batch; without those
    that have no end.
    """


class Simulation:
    """All that one run consists of."""

    def __init__(
        self,
        scenario: Scenario,
        stores: Stores,
        trace: Trace,
        intentions: Sequence[Intention] | None = None,
    ) -> None:
        """`intentions` None: drawn from the seed."""
        self._scenario = scenario
        self._stores = stores
        self._trace = trace
        self._random = Random(f"world {scenario.seed}")
        path = str(stores.path)
        disk = BlobDisk(SimClock(None).now)
        answers: dict[str, list[Any]] = {}
        evidence = Evidence(scenario.field, scenario.engines, scenario.workers)
        watch = InvariantCheck(path, disk)
        self._ground = Ground(
            scenario=scenario,
            random=Random(f"chance {scenario.seed}"),
            faults=PortFaults(scenario, trace),
            trace=trace,
            disk=disk,
            engines=[
                EngineMachine(n, scenario, answers, evidence, trace)
                for n in range(scenario.engines)
            ],
            watch=watch,
            owners=Owners(trace, watch.fail),
            receivers=Receivers(scenario.seed, trace),
        )
        subscribe(path)
        inline_sqlite.gates[path] = self._ground.faults.database
        inline_sqlite.commits[path] = self._ground.watch.committed
        self._account = FinalCheck(
            path, disk, answers, self._ground.catalogue.prices, evidence, watch
        )
        self._nodes: dict[int, Node] = {}
        self._past: list[Node] = []
        self._closing = False
        if intentions is None:
            numbers = range(scenario.batches)
            intentions = [draw_intention(scenario, number, self._random) for number in numbers]
        self.intentions = intentions

    @property
    def watch(self) -> InvariantCheck:
        return self._ground.watch

    @property
    def took_s(self) -> dict[int, float]:
        """Seconds from the submitter's first call to the end, by number of the batch."""
        ends = self.watch.ended_at_s
        return {
            intention.number: ends[intention.batch.id] - intention.begins_s
            for intention in self.intentions
            if intention.batch is not None and intention.batch.id in ends
        }

    async def run(self) -> None:
        """Runs the whole simulation. Raises Violation, Stuck."""
        story = asyncio.ensure_future(self._story())
        broken = self.watch.broken
        await asyncio.wait({story, broken}, return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            broken.result()
        story.result()

    async def terminate(self) -> None:
        """Unwind everything, alive or dead."""
        self._closing = True
        nodes = (*self._past, *self._nodes.values())
        for node in nodes:
            node.process.kill()  # first all of them: one that spins would let no time pass
        for node in nodes:
            await node.process.terminate(virtual_loop().release)
        self.watch.close()

    async def call(self, work: Callable[[Node], Awaitable[T]]) -> T:
        """Does work in the API process, wherever it is, if it is up."""
        node = self._nodes.get(0 if self._scenario.together else self._scenario.workers)
        if node is None:
            raise Unreachable("nobody listens")
        return await node.call(work)

    async def _story(self) -> None:
        scenario = self._scenario
        storm = FaultInjection(
            scenario, self._living, self._ground.engines, self._ground.faults, self._trace
        )
        places = range(scenario.workers + (not scenario.together))
        keepers = [asyncio.ensure_future(self._keep_up(place)) for place in places]
        clients = [
            asyncio.ensure_future(self._client_of(intention).run()) for intention in self.intentions
        ]
        if scenario.storm_waits:
            await self._submitted()
        if scenario.storms:
            await storm.inject_faults(self._mostly_done)
        live = asyncio.ensure_future(self._live_calls())
        ails_s = max(0.0, scenario.field.mended_s - asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(PATIENCE_S + storm.clocks_off_s + ails_s):
                await asyncio.gather(*clients)
        except TimeoutError:
            ends = [
                (intention.number, intention.batch and intention.batch.status)
                for intention in self.intentions
            ]
            raise Violation(f"not over after {PATIENCE_S} s of calm: {ends}") from None
        await self._reported()
        live.cancel()
        await self._stop(keepers)
        self._account.settle(self.intentions)
        self._ground.receivers.check(str(self._stores.path))
        if scenario.storms:
            await self._sweep(storm.clocks_off_s)
        else:
            await self._stores.of(0).aclose()

    async def _reported(self) -> None:
        """Waits until every event is delivered. Raises Violation where that takes too long."""
        path = str(self._stores.path)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while pending(path):  # noqa: ASYNC110 - virtual: costs nothing
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise Violation(f"{pending(path)} events are not delivered in time") from None

    async def _live_calls(self) -> None:
        gap_s = self._scenario.live_gap_s
        if gap_s is not None:
            await LiveCaller(self, gap_s, self._trace, self.watch.fail).run()

    async def _submitted(self) -> None:
        while not all(intention.batch for intention in self.intentions):  # noqa: ASYNC110 - virtual: costs nothing
            await asyncio.sleep(0.2)

    def _mostly_done(self) -> bool:
        lines = sum(len(intention.prompts) for intention in self.intentions if intention.valid)
        return self.watch.settled >= _ENOUGH * lines

    def _client_of(self, intention: Intention) -> SimClient:
        return SimClient(
            intention,
            self,
            self._random,
            self._trace,
            patience_s=self._scenario.patience_s,
            is_over=self.watch.ended_at_s.__contains__,
            stands_for_s=self.watch.stands_for_s,
            steerer=partial(self._steerer_of, intention) if self._scenario.steers else None,
        )

    def _steerer_of(self, intention: Intention, insist: Insist) -> Steerer:
        random = Random(f"steering {self._scenario.seed} {intention.number}")
        return Steerer(intention, insist, random)

    async def _keep_up(self, place: int) -> None:
        """Supervises a process: starts it again whenever it ends."""
        scenario = self._scenario
        name = f"w{place}" if place < scenario.workers else "api"
        serves_http = place == (0 if scenario.together else scenario.workers)
        while not self._closing:
            store = self._stores.of(place)
            node = Node(
                self._ground, name, store, serves_http=serves_http, loops=place < scenario.workers
            )
            self._nodes[place] = node
            self.watch.started_at_s = asyncio.get_running_loop().time()
            await node.live()
            self._past.append(self._nodes.pop(place))
            self._trace.note(f"{name} is gone")
            await asyncio.sleep(self._random.choice([0.1, 0.3, 1.0, 1.5 * scenario.lease_ttl_s]))

    def _living(self) -> list[Node]:
        return list(self._nodes.values())

    async def _stop(self, keepers: Sequence["asyncio.Future[None]"]) -> None:
        """Sends SIGTERM to all; each ends by itself, in time."""
        self._closing = True
        nodes = self._living()
        for node in nodes:
            node.terminate()
        within_s = max((node.drains_within_s for node in nodes), default=0.0)
        _, late = await asyncio.wait(keepers, timeout=within_s + self._scenario.lease_ttl_s * 2)
        if late:
            raise Violation(f"{len(late)} processes did not end on SIGTERM")
        for keeper in keepers:
            keeper.result()

    async def _sweep(self, clocks_off_s: float) -> None:
        """Retention passes, also for what ended by a clock that was ahead; a sweeper of a fresh
        process does its rounds.
        """
        clock = SimClock(None)
        store = self._stores.of(0)
        blobs = MemoryBlobs(self._ground.disk)
        kept_s = max(limits.SEGMENTS_KEEP_S, limits.ORPHAN_AGE_S)
        for rests_s, check in (
            (kept_s + 60.0 + clocks_off_s, self._account.swept),
            (limits.FILE_TTL_S + kept_s, self._account.emptied),
        ):
            await asyncio.sleep(rests_s)
            sweeper = SweepLoop(store.results, blobs, clock)
            for _ in range(3):
                await sweeper.tick(clock.now())
                await asyncio.sleep(limits.ORPHAN_DOUBT_S)
            check()
        await store.aclose()


def play(seed: int, stores: Stores, *, verbose: bool = False) -> Played:
    """Run one seed to its end."""
    return play_world(draw_scenario(seed), stores, verbose=verbose)


def play_world(
    scenario: Scenario,
    stores: Stores,
    intentions: Sequence[Intention] | None = None,
    *,
    verbose: bool = False,
) -> Played:
    """Run one world to its end, with the batches that its seed draws, or these."""
    trace = Trace(str(stores.path.parent), verbose=verbose)
    loop = VirtualLoop()
    stores.renew()
    broken: str | None = None
    worlds: list[Simulation] = []

    async def main() -> None:
        worlds.append(Simulation(scenario, stores, trace, intentions))
        await worlds[0].run()

    with scaled_limits(scenario), trace.of_logs(), _no_garbage_collection():
        try:
            loop.run_until_complete(main())
        except (Violation, Stuck) as error:
            broken = f"{type(error).__name__}: {error}"
        except ExceptionGroup as group:  # of a client's tasks
            broken = "; ".join(f"{type(error).__name__}: {error}" for error in group.exceptions)
        if broken is None and (trace.alarms or loop.unhandled):
            broken = f"these must not happen: {trace.alarms + loop.unhandled}"
        ended_s, steps = loop.time(), loop.steps
        loop.run_until_complete(worlds[0].terminate())
    played, commits = worlds[0].intentions, worlds[0].watch.commits
    return Played(
        seed=scenario.seed,
        broken=broken,
        virtual_s=ended_s,
        steps=steps,
        commits=commits,
        batches=len(played),
        lines=sum(len(intention.prompts) for intention in played),
        counts=trace.counts,
        faults={kind.value: count for kind, count in trace.faults.items()},
        deaths=frozenset(trace.deaths),
        digest=trace.digest(ended_s, steps, commits, broken),
        trace=list(trace.lines),
        took_s=worlds[0].took_s,
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Turns the garbage collector off: when it runs is up to chance, and so would
    be what it ends.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
