"""loops/replicas/replica_set.py: replicas that come, go, change and flap while batches are at
work."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from random import Random

import pytest
from worker_env import MODEL, WorkerEnv

from lowtide import limits
from lowtide.core.bodies.body_rules import BodyRules
from lowtide.core.dispatch.replica import Replica
from lowtide.core.faults.outcome import NoReply
from lowtide.core.replicas.replica_changes import ReplicaSpec
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.replicas.replica_set import ReplicaMember, ReplicaSet
from testkit.fake_engine import ANSWER, FakeEngine
from testkit.patience import PATIENCE_S

OTHER = "other-model"


class Engine(FakeEngine):
    """With connections that are seen to be closed."""

    closed = False

    @property
    def is_idle(self) -> bool:
        return not self.waiting

    async def aclose(self) -> None:
        self.closed = True
        self.let_go(NoReply("broken", "the client is closed"))


class Fleet:
    """A worker's dispatcher over a set whose engines are made by the test. The settings of a
    replica are its address, or None for one that cannot be opened."""

    def __init__(self, env: WorkerEnv) -> None:
        self.env = env
        self.engines: dict[str, list[Engine]] = {}
        self.touched: list[set[str]] = []
        self.set: ReplicaSet[str | None] = ReplicaSet(self._open, env.clock)
        env.start(self.set.upstreams)
        self.set.follow(self)

    def _open(self, spec: ReplicaSpec[str | None]) -> ReplicaMember:
        if spec.settings is None:
            raise ValueError(f"{spec.name} cannot be opened")
        engine = Engine(url=f"http://{spec.settings}/v1")
        engine.holds = True
        self.engines.setdefault(spec.name, []).append(engine)
        models = frozenset(spec.engine_names)
        replica = Replica(engine.url, models, 4, name=spec.name)
        upstream = Upstream(replica, engine, spec.engine_names, BodyRules(), 600.0)
        return ReplicaMember(upstream=upstream, connections=(engine,))

    def replicas_changed(self, members: Sequence[ReplicaMember], touched: Collection[str]) -> None:
        assert [each.replica for each in members] == [u.replica for u in self.set.upstreams]
        self.touched.append(set(touched))
        self.env.dispatcher.replicas_changed(touched)

    def take_back(self, replica_name: str) -> None:
        dispatcher = self.env.dispatcher
        dispatcher.revoke(replica_name, dispatcher.calls_on(replica_name))

    def apply(self, *names: str, models: Iterable[str] = (MODEL,), at: str = "") -> None:
        engine_names = {model: model for model in models}
        self.set.apply([ReplicaSpec(name, at or name, engine_names) for name in names])

    def engine(self, name: str) -> Engine:
        return self.engines[name][-1]

    async def closes(self, engine: Engine) -> None:
        """Let the time pass that the set waits for calls to end."""
        async with asyncio.timeout(PATIENCE_S):
            while not engine.closed:
                await asyncio.sleep(0)
                self.env.clock.advance(limits.REPLICA_IDLE_POLL_S)


@pytest.fixture
def fleet(env: WorkerEnv) -> Fleet:
    return Fleet(env)


async def test_a_replica_that_comes_has_work_at_the_next_tick(env: WorkerEnv, fleet: Fleet) -> None:
    fleet.apply()
    batch = await env.batch(3)
    await env.dispatch()
    fleet.apply("a")
    await env.dispatch()
    await fleet.engine("a").saw(lambda: len(fleet.engine("a").calls) == 3)
    fleet.engine("a").let_go()
    await env.flights_ended()
    await env.beat()
    assert (await env.see(batch)).counts.completed == 3
    assert fleet.touched == [{"a"}]


async def test_one_that_leaves_gets_no_call_more_and_may_end_those_it_has(
    env: WorkerEnv, fleet: Fleet
) -> None:
    fleet.apply("a", "b")
    batch = await env.batch(20)
    await env.dispatch()
    leaving = fleet.engine("a")
    await leaving.saw(lambda: len(leaving.calls) == 4)
    fleet.apply("b")
    leaving.let_go()
    await fleet.closes(leaving)
    assert len(leaving.calls) == 4 and not leaving.cancelled
    fleet.engine("b").holds = False
    fleet.engine("b").let_go()
    await env.work_off()
    counts = (await env.see(batch)).counts
    assert (counts.completed, counts.failed) == (20, 0)
    assert len(leaving.calls) + len(fleet.engine("b").calls) == 20, "nothing was sent twice"


async def test_calls_that_outlast_the_bound_are_taken_back_and_run_elsewhere(
    env: WorkerEnv, fleet: Fleet
) -> None:
    fleet.apply("a")
    batch = await env.batch(4)
    await env.dispatch()
    stuck = fleet.engine("a")
    await stuck.saw(lambda: len(stuck.calls) == 4)
    requests = env.dispatcher.calls_on("a")
    fleet.apply("b")
    env.clock.advance(limits.REPLICA_LEAVE_S - 1)
    await asyncio.sleep(0)
    assert not stuck.closed
    await fleet.closes(stuck)
    assert len(stuck.cancelled) == 4
    assert [(request.tries, request.crash_count) for request in requests] == [(0, 0)] * 4
    fleet.engine("b").holds = False
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 4
    assert len(fleet.engine("b").calls) == 4


async def test_one_that_comes_back_before_it_has_left_is_the_same_replica(
    env: WorkerEnv, fleet: Fleet
) -> None:
    """Flapping: its window and its calls in flight go on counting."""
    fleet.apply("a")
    await env.batch(12)
    await env.dispatch()
    first = fleet.engine("a")
    await first.saw(lambda: len(first.calls) == 4)
    (replica,) = (each.replica for each in fleet.set.upstreams)
    for _ in range(5):
        fleet.apply()
        await env.dispatch()
        fleet.apply("a")
        await env.dispatch()
    assert [each.replica for each in fleet.set.upstreams] == [replica]
    assert replica.in_flight == 4
    assert sum(len(engine.waiting) for engine in fleet.engines["a"]) == 4
    for engine in fleet.engines["a"]:
        engine.holds = False
        engine.let_go()
    await env.work_off()
    assert sum(len(engine.calls) for engine in fleet.engines["a"]) == 12
    for engine in fleet.engines["a"][:-1]:
        await fleet.closes(engine)


async def test_a_moved_replica_is_called_at_its_new_address_with_no_try_charged(
    env: WorkerEnv, fleet: Fleet
) -> None:
    fleet.apply("a", at="old")
    batch = await env.batch(4)
    await env.dispatch()
    old = fleet.engine("a")
    await old.saw(lambda: len(old.calls) == 4)
    requests = env.dispatcher.calls_on("a")
    (upstream,) = fleet.set.upstreams
    fleet.apply("a", at="new")
    assert fleet.set.upstreams[0] is upstream
    await fleet.closes(old)
    assert len(old.cancelled) == 4
    fleet.engine("a").holds = False
    await env.work_off()
    assert [request.tries for request in requests] == [0] * 4
    assert (await env.see(batch)).counts.completed == 4
    assert upstream.replica.url == "http://new/v1"


async def test_a_key_that_was_changed_opens_a_circuit_that_the_old_one_had_closed(
    fleet: Fleet,
) -> None:
    fleet.apply("a", at="old")
    replica = fleet.set.upstreams[0].replica
    for _ in range(limits.CIRCUIT_FAILURES):
        replica.circuit.failed(0.0, "wrong key")
    assert not replica.takes_calls(0.0)
    fleet.apply("a", at="new")
    assert fleet.set.upstreams[0].replica is replica and replica.takes_calls(0.0)
    await fleet.set.aclose()


async def test_a_model_that_vanishes_is_sent_nothing_more_and_its_chunk_given_back(
    env: WorkerEnv, fleet: Fleet
) -> None:
    fleet.apply("a", models=(MODEL, OTHER))
    batch = await env.batch(10)
    await env.dispatch()
    engine = fleet.engine("a")
    await engine.saw(lambda: len(engine.calls) == 4)
    fleet.apply("a", models=(OTHER,))
    await env.dispatch()
    assert env.dispatcher.held(), "calls in flight end first"
    engine.let_go()
    await env.flights_ended()
    await env.dispatch()
    await env.beat()
    assert len(engine.calls) == 4 and not env.dispatcher.held()
    assert (await env.see(batch)).counts.completed == 4
    engine.holds = False
    fleet.apply("a", models=(MODEL,))
    await env.work_off()
    assert (await env.see(batch)).counts.completed == 10
    assert len(engine.calls) == 10
    assert fleet.engines["a"] == [engine], "other models need no other connections"


async def test_a_list_with_a_replica_that_cannot_be_opened_changes_nothing(fleet: Fleet) -> None:
    fleet.apply("a")
    before, reported = list(fleet.set.upstreams), list(fleet.touched)
    wanted = [ReplicaSpec[str | None]("b", "b", {}), ReplicaSpec[str | None]("c", None, {})]
    with pytest.raises(ValueError, match="c cannot be opened"):
        fleet.set.apply(wanted)
    assert list(fleet.set.upstreams) == before
    assert fleet.touched == reported
    fleet.apply("a")
    assert len(fleet.engines["a"]) == 1 and fleet.touched == reported, "and it is still as it was"


async def test_closing_ends_those_that_are_leaving_too(env: WorkerEnv, fleet: Fleet) -> None:
    fleet.apply("a", "b")
    await env.batch(1)
    await env.dispatch()
    a, b = fleet.engine("a"), fleet.engine("b")
    fleet.apply("b")
    await fleet.set.aclose()
    assert a.closed and b.closed
    a.let_go(ANSWER)
    await env.flights_ended()


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_comes_and_goes_each_line_is_answered_once(
    env: WorkerEnv, fleet: Fleet, seed: int
) -> None:
    """Replicas are added, removed, moved and flap, drawn by the seed, while a batch is at work."""
    random, lines = Random(seed), 60
    batch = await env.batch(lines)
    for _ in range(30):
        names = [name for name in "abc" if random.random() < 0.6]
        at = random.choice(["", "", "moved"])
        models = (MODEL,) if random.random() < 0.8 else (OTHER,)
        fleet.apply(*names, at=f"{at}{random.randint(0, 1)}" if at else "", models=models)
        env.dispatcher.announce()
        await env.dispatch()
        for engine in [engine for engines in fleet.engines.values() for engine in engines]:
            for call in engine.waiting:
                if random.random() < 0.3 and not call.answered.done():
                    call.answered.set_result(ANSWER)
        for _ in range(random.randint(0, 5)):
            await asyncio.sleep(0)
        env.clock.advance(random.choice([0.05, 1.0, limits.REPLICA_LEAVE_S]))
        await env.beat()
    fleet.apply("a", "b")
    engines = [engine for engines in fleet.engines.values() for engine in engines]
    for engine in engines:
        engine.holds = False
        engine.let_go()
    await env.work_off()
    counts = (await env.see(batch)).counts
    assert (counts.completed, counts.failed) == (lines, 0)
    answered = sum(len(engine.calls) - len(engine.cancelled) for engine in engines)
    assert answered == lines, "no line is answered twice"
    for engine in engines:
        if engine not in (fleet.engine("a"), fleet.engine("b")):
            await fleet.closes(engine)
