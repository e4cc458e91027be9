"""loops/replicas/window_control.py: readings become windows, and calls give way to live ones."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import msgspec
from worker_env import MODEL, WorkerEnv

from lowtide import limits
from lowtide.core.bodies.body_rules import BodyRules
from lowtide.core.capacity.engine_metrics import NO_LIVE, EngineMetrics, LiveSeen
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.replica import Replica
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.replicas.window_control import ControlLoop, EngineProbeLoop, ReplicaControl
from lowtide.ports.engine import EngineInfo
from testkit.fake_engine import PATIENCE_S

FULL = EngineMetrics(running=8, waiting=1, seats_max=8)


class Reported:
    """An engine's metrics, the live calls' load and a prober, all in the test's hands."""

    def __init__(self) -> None:
        self.metrics: EngineMetrics | None = EngineMetrics(running=0, waiting=0)
        self.live = NO_LIVE
        self.found: EngineInfo | None = EngineInfo("vllm", self, 100)
        self.probes = 0
        self.on_asked: Callable[[int, float], None] = lambda *_: None

    async def read(self) -> EngineMetrics | None:
        return self.metrics

    async def probe(self) -> EngineInfo | None:
        self.probes += 1
        return self.found

    def live_load(self, now_s: float, patience_s: float) -> LiveSeen:
        return self.live

    def when_asked(self, reported: Callable[[int, float], None]) -> None:
        self.on_asked = reported


class ControlBench:
    """A work bench whose one replica is controlled."""

    def __init__(self, env: WorkerEnv, window: int = 8) -> None:
        self.env = env
        self.reported = Reported()
        controller = WindowController(window, window_start=window)
        self.controller = controller
        self.replica = Replica(env.engine.url, frozenset({MODEL}), window, controller=controller)
        upstream = Upstream(self.replica, env.engine, {MODEL: MODEL}, BodyRules(), 600.0)
        env.upstream = upstream
        env.start([upstream])
        env.engine.holds = True
        self.each = ReplicaControl(self.replica, controller, self.reported, self.reported)
        self.polled: list[tuple[Replica, bool]] = []
        self.woken = 0
        self.control = ControlLoop(
            [self.each],
            env.dispatcher,
            env.clock,
            on_update=lambda replica, is_ours: self.polled.append((replica, is_ours)),
            wake=self._wake,
        )
        self.probe = EngineProbeLoop([self.each], env.clock)

    async def poll(self, polls: int = 1) -> None:
        for _ in range(polls):
            self.env.clock.advance(limits.CONTROL_POLL_S)
            await self.control.tick(self.env.clock.now())

    async def meet(self) -> None:
        await self.probe.tick(self.env.clock.now())

    async def saw_aborted(self, calls: int) -> None:
        """That many calls were taken back; wait until their slots are gone."""
        revoked = [task for task, slot in self.env.dispatcher._slots.tasks.items() if slot.revoked]
        assert len(revoked) == calls
        await asyncio.wait(revoked, timeout=PATIENCE_S)
        await asyncio.sleep(0)  # their callbacks

    def _wake(self) -> None:
        self.woken += 1


async def test_the_window_follows_what_the_engine_tells(env: WorkerEnv) -> None:
    ground = ControlBench(env)
    await ground.meet()
    ground.reported.metrics = EngineMetrics(running=0, waiting=0, seats_max=3)
    await ground.poll()
    assert ground.replica.window == 3
    assert ground.polled == [(ground.replica, True)]
    ground.reported.metrics = EngineMetrics(running=0, waiting=0, seats_max=8)
    await ground.poll()
    assert ground.replica.window == 8
    assert ground.woken == 1, "only a window that grew gives the dispatcher something to do"


async def test_a_poll_is_due_twice_a_second(env: WorkerEnv) -> None:
    ground = ControlBench(env)
    now = env.clock.now()
    assert await ground.control.tick(now) == now + timedelta(seconds=limits.CONTROL_POLL_S)


async def test_an_engine_that_is_not_known_keeps_the_operators_window(env: WorkerEnv) -> None:
    ground = ControlBench(env)
    ground.reported.metrics = None
    await ground.poll(20)
    assert ground.replica.window == 8


async def test_an_engine_that_falls_silent_loses_its_window_and_is_looked_at_again(
    env: WorkerEnv,
) -> None:
    ground = ControlBench(env)
    await ground.meet()
    ground.reported.metrics = None
    await ground.poll(limits.STALE_POLLS + 3)
    assert ground.replica.window == limits.WINDOW_MIN
    assert ground.reported.probes == 1
    env.clock.advance(limits.PROBE_AGAIN_S)
    ground.reported.found = EngineInfo("openai", None, None)
    await ground.meet()
    assert ground.reported.probes == 2
    assert ground.replica.priority is None
    await ground.poll(10)
    assert ground.replica.window == limits.WINDOW_MIN, "nothing is in flight, so nothing grows"


async def test_a_known_engine_is_not_looked_at_again_and_an_absent_one_is(
    env: WorkerEnv,
) -> None:
    ground = ControlBench(env)
    ground.reported.found = None
    await ground.meet()
    await ground.meet()
    assert ground.reported.probes == 1
    env.clock.advance(limits.PROBE_AGAIN_S)
    ground.reported.found = EngineInfo("vllm", ground.reported, None, is_complete=False)
    await ground.meet()
    env.clock.advance(limits.PROBE_AGAIN_S)
    ground.reported.found = EngineInfo("vllm", ground.reported, 100)
    await ground.meet()
    assert (ground.reported.probes, ground.replica.priority) == (3, 100)
    env.clock.advance(1000.0)
    await ground.meet()
    assert ground.reported.probes == 3


async def test_live_calls_that_wait_before_a_full_engine_get_the_place_of_the_youngest(
    env: WorkerEnv,
) -> None:
    ground = ControlBench(env)
    batch = await env.batch(40)
    await ground.meet()
    ground.replica.guard.finished(1_000_000, env.clock.monotonic())
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 8)
    ground.reported.metrics = FULL
    ground.reported.live = LiveSeen(in_flight=2, waiting=2, tokens_each=1.0)
    await ground.poll()
    await ground.saw_aborted(2)
    assert ground.replica.in_flight == 6
    assert ground.replica.window <= 6, "their places stay free"
    assert ground.replica.guard.revoked_total == 2
    aborted = {call.body for call in env.engine.cancelled}
    ground.reported.live = NO_LIVE
    ground.reported.metrics = EngineMetrics(running=6, waiting=0, seats_max=8)
    env.engine.holds = False
    env.engine.let_go()
    for _ in range(20):
        await ground.poll()
        await env.work_off()
    assert (await env.see(batch)).counts.completed == 40
    assert sorted(await env.committed_lines(batch)) == list(range(1, 41))
    again = [call.body for call in env.engine.calls if call.body in aborted]
    assert len(again) == 4, "each of the two was sent twice"


async def test_an_engine_that_bounds_its_steps_is_sent_all_that_fits_and_nothing_is_taken_back(
    env: WorkerEnv,
) -> None:
    ground = ControlBench(env)
    await env.batch(40)
    await ground.meet()
    ground.replica.streams = True
    ground.replica.guard.finished(1_000_000, env.clock.monotonic())
    bounded = EngineMetrics(running=8, waiting=1, prompt_tokens_total=0.0, bounds_steps=True)
    ground.reported.metrics = bounded
    ground.reported.live = LiveSeen(in_flight=2, waiting=2, tokens_each=1.0)
    await ground.poll(3)
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 8)
    ground.reported.on_asked(500, env.clock.monotonic())
    await ground.poll(3)
    assert ground.replica.guard.revoked_total == 0
    assert ground.replica.in_flight == 8
    assert not ground.replica.watches, "nothing has to be seen of its prompts"
    assert ground.replica.window == 8
    ground.reported.metrics = msgspec.structs.replace(bounded, bounds_steps=False)
    await ground.poll()
    assert ground.replica.watches, "restarted without the class, it is paced at once"
    await ground.saw_aborted(2)
    await env.dispatcher.drain(0.0)


async def test_an_engine_that_takes_batch_calls_for_live_ones_is_paced(env: WorkerEnv) -> None:
    ground = ControlBench(env)
    ground.reported.found = EngineInfo("vllm", ground.reported, None)
    await ground.meet()
    ground.reported.metrics = EngineMetrics(running=0, waiting=0, bounds_steps=True)
    await ground.poll()
    assert not ground.controller.bounds_steps, "they are sent without a priority"


async def test_another_workers_replica_is_left_alone(env: WorkerEnv) -> None:
    ground = ControlBench(env)
    await ground.meet()
    ground.replica.owned_until_s = env.clock.monotonic()
    ground.reported.metrics = EngineMetrics(running=500, waiting=0, seats_max=2)
    await ground.poll(5)
    assert ground.replica.window == 8
    assert set(ground.polled) == {(ground.replica, False)}


async def test_prompts_that_are_not_read_yet_make_way_for_a_live_call_at_once(
    env: WorkerEnv,
) -> None:
    ground = ControlBench(env)
    await env.batch(40)
    await ground.meet()
    ground.reported.metrics = EngineMetrics(running=0, waiting=0, prompt_tokens_total=0.0)
    await ground.poll()
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) == 8)
    requests = env.dispatcher.calls_on(ground.replica.name)
    for request in requests:
        request.tokens = 20_000
        ground.controller.pacer.sent(request.tokens, env.clock.monotonic())
    ground.reported.on_asked(500, env.clock.monotonic())
    await ground.saw_aborted(8)
    assert ground.replica.in_flight == 0
    assert all(request.tries == 0 for request in requests)
    await env.dispatch()
    assert ground.replica.in_flight == 0, "nothing is sent before the live prompt is read"
    ground.replica.live_answered(500, env.clock.monotonic())
    await env.dispatch()
    assert ground.replica.in_flight > 0
    await env.dispatcher.drain(0.0)


async def test_a_watched_call_makes_way_until_its_first_token_and_not_for_ever(
    env: WorkerEnv,
) -> None:
    ground = ControlBench(env)
    await env.batch(40)
    await ground.meet()
    ground.replica.streams = True
    ground.controller.pacer.active = True
    await env.dispatch()
    await env.engine.saw(lambda: len(env.engine.waiting) > 0)
    read, unread, tired = env.dispatcher.calls_on(ground.replica.name)[:3]
    for request in (read, unread, tired):
        ground.replica.end_prefill(request.tokens, 0.0)
        request.tokens, request.prefill_done = 9_000, False
        ground.controller.pacer.sent(9_000, 0.0, watched=True)
    read.prefill_done = True
    tired.yields = limits.YIELDS_MAX
    ground.reported.on_asked(500, env.clock.monotonic())
    await ground.saw_aborted(1)
    assert (read.yields, unread.yields, tired.yields) == (0, 1, limits.YIELDS_MAX)
    assert unread.tries == 0
    await env.dispatcher.drain(0.0)
