"""The discrete-event loop: what a policy hears, and when."""

import random
from collections.abc import Sequence

import pytest

from lowtide.engine_sim.benchmarks.virtual import Arrival, GatewayPolicy, VirtualWorld
from lowtide.engine_sim.engine import SimEngine, StepEvents
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engine_sim.state.requests import SimRequest


def engines(count: int = 1) -> list[SimEngine]:
    return [SimEngine(PROFILES["8b-h100"], seed=n) for n in range(count)]


class Window(GatewayPolicy):
    """A fixed number of batch requests in flight on each replica."""

    def __init__(self, requests: list[SimRequest], window: int) -> None:
        self.left = requests[::-1]
        self.window = window
        self.in_flight: list[int] = []
        self.peak = 0
        self.reported: list[tuple[str, float, object]] = []
        self.steps: list[StepEvents] = []
        self.polled: list[float] = []

    def on_start(self, world: VirtualWorld) -> None:
        self.in_flight = [0] * len(world.engines)
        for replica in range(len(world.engines)):
            self.fill(world, replica)

    def fill(self, world: VirtualWorld, replica: int) -> None:
        while self.left and self.in_flight[replica] < self.window and not world.is_down(replica):
            world.submit(replica, self.left.pop())
            self.in_flight[replica] += 1
        self.peak = max(self.peak, self.in_flight[replica])

    def on_step(self, world: VirtualWorld, replica: int, events: StepEvents) -> None:
        self.steps.append(events)

    def on_first_token(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        self.reported.append(("first", world.now, request.id))

    def on_finished(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        self.reported.append(("finished", world.now, request.id))
        if not request.interactive:
            self.in_flight[replica] -= 1
            self.fill(world, replica)

    def on_poll(self, world: VirtualWorld) -> None:
        self.polled.append(world.now)


def batch(count: int, prompt: int = 100, output: int = 10) -> list[SimRequest]:
    return [SimRequest(n, ((n, prompt),), output) for n in range(count)]


def test_a_window_is_kept_full_and_never_exceeded() -> None:
    policy = Window(batch(50), 4)
    VirtualWorld(engines(2), policy).run()
    assert policy.peak == 4
    assert {i for kind, _, i in policy.reported if kind == "finished"} == set(range(50))


def test_events_come_in_order_of_time_and_at_the_end_of_their_step() -> None:
    policy = Window(batch(20), 5)
    end = VirtualWorld(engines(), policy).run()
    times = [at for _, at, _ in policy.reported]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(policy.steps[-1].ended_at) == end
    first = {i: at for kind, at, i in policy.reported if kind == "first"}
    finished = {i: at for kind, at, i in policy.reported if kind == "finished"}
    assert all(first[n] < finished[n] for n in range(20))


def test_polls_come_at_their_interval_and_do_not_keep_the_world_alive() -> None:
    policy = Window(batch(40, 1000, 400), 4)
    end = VirtualWorld(engines(), policy, poll_s=0.5).run()
    assert policy.polled == [pytest.approx(0.5 * n) for n in range(1, int(end / 0.5) + 1)]


def test_an_arrival_without_a_replica_goes_to_the_least_loaded_one() -> None:
    world_engines = engines(2)
    policy = Window([], 1)
    live = [SimRequest(f"live {n}", ((n, 50),), 5, interactive=True) for n in range(2)]
    world = VirtualWorld(world_engines, policy, [Arrival(0.001 * n, live[n]) for n in range(2)])
    world.run()
    assert [e.counters.finished for e in world_engines] == [1, 1]


def test_an_arrival_waits_for_the_step_under_way() -> None:
    policy = Window(batch(1, 8000, 50), 1)
    live = SimRequest("live", (("q", 50),), 5, interactive=True)
    VirtualWorld(engines(), policy, [Arrival(0.01, live)]).run()
    prefill = policy.steps[0].duration_s
    assert prefill > 0.1
    assert live.scheduled_at == pytest.approx(prefill)
    assert live.arrived_at == 0.01
    assert sum(step.interactive_decodes for step in policy.steps) == 4


def test_a_request_aborted_during_its_last_step_is_not_heard_of_again() -> None:
    class Fickle(Window):
        def on_start(self, world: VirtualWorld) -> None:
            super().on_start(world)
            world.at(1e-4, lambda: self.abort(world))

        def abort(self, world: VirtualWorld) -> None:
            aborted = world.abort(0, 0)
            assert aborted is not None
            self.reported.append(("aborted", world.now, aborted.id))

    policy = Fickle(batch(1, 100, 1), 1)
    VirtualWorld(engines(), policy).run()
    assert policy.reported == [("aborted", 1e-4, 0)]


def test_a_crash_loses_what_was_in_the_engine_and_the_replica_comes_back_empty() -> None:
    lost: list[object] = []

    class Mourner(Window):
        def on_start(self, world: VirtualWorld) -> None:
            super().on_start(world)
            world.at(0.05, lambda: world.crash(0, 2.0))
            world.at(2.1, lambda: self.again(world))

        def on_lost(
            self, world: VirtualWorld, replica: int, requests: Sequence[SimRequest]
        ) -> None:
            lost.extend(r.id for r in requests)
            assert world.is_down(replica)
            with pytest.raises(ConnectionError):
                world.submit(replica, SimRequest("early", (("e", 5),), 1))

        def again(self, world: VirtualWorld) -> None:
            assert not world.is_down(0)
            world.submit(0, SimRequest("again", ((0, 100),), 10))

    policy = Mourner(batch(3, 100, 500), 3)
    world_engines = engines()
    VirtualWorld(world_engines, policy).run()
    assert lost == [0, 1, 2]
    assert [i for kind, _, i in policy.reported if kind == "finished"] == ["again"]
    assert world_engines[0].counters.prefix_cache_hits == 0  # the cache died as well


def test_a_run_is_a_function_of_its_inputs() -> None:
    def run() -> list[tuple[str, float, object]]:
        rng = random.Random(7)
        noisy = [SimEngine(PROFILES["8b-h100"], noise=0.03, seed=n) for n in range(2)]
        policy = Window([SimRequest(n, ((n, 50),), rng.randint(1, 40)) for n in range(60)], 7)
        live = (
            Arrival(0.02 * n, SimRequest(f"l{n}", ((f"l{n}", 30),), 9, interactive=True))
            for n in range(50)
        )
        VirtualWorld(noisy, policy, live).run()
        return policy.reported

    assert run() == run()


def test_a_run_can_end_at_an_instant() -> None:
    policy = Window(batch(50, 1000, 400), 4)
    world = VirtualWorld(engines(), policy)
    assert world.run(until=1.25) == 1.25
    assert policy.polled == [0.5, 1.0]


def test_a_policy_that_holds_work_back_is_polled_until_it_lets_it_go() -> None:
    class Patient(Window):
        def on_start(self, world: VirtualWorld) -> None:
            self.in_flight = [0]

        def holds_work(self) -> bool:
            return bool(self.left)

        def on_poll(self, world: VirtualWorld) -> None:
            if world.now > 3:
                self.fill(world, 0)

    policy = Patient(batch(5), 2)
    assert VirtualWorld(engines(), policy).run() > 3.5
    assert {i for kind, _, i in policy.reported if kind == "finished"} == set(range(5))
