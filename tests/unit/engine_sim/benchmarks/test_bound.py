"""The bounds: never above what a schedule reached, and not far below a good one."""

import random
from dataclasses import replace

import pytest

from lowtide.engine_sim.benchmarks.bound import batch_bound, demand_of, makespan_bound
from lowtide.engine_sim.engine import SimEngine
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig
from lowtide.engine_sim.state.requests import SimRequest

PROFILE = PROFILES["8b-h100"]
CONFIG = SchedulerConfig()


def workload(count: int, mu_in: float, mu_out: float, seed: int = 1) -> list[SimRequest]:
    rng = random.Random(seed)

    def tokens(mu: float) -> int:
        return max(1, round(rng.lognormvariate(mu, 0.6)))

    return [SimRequest(n, ((n, tokens(mu_in)),), tokens(mu_out)) for n in range(count)]


def makespan(requests: list[SimRequest], window: int) -> float:
    engine = SimEngine(PROFILE, CONFIG)
    left, now = requests[::-1], 0.0
    for _ in range(min(window, len(left))):
        engine.submit(left.pop(), now)
    while (events := engine.step(now)) is not None:
        now = events.ended_at
        for _ in events.finished:
            if left:
                engine.submit(left.pop(), now)
    return now


@pytest.mark.parametrize(
    ("mu_in", "mu_out", "tightness"),
    [(5.0, 5.0, 0.7), (7.3, 4.7, 0.9), (5.5, 6.5, 0.75), (6, 0, 0.9)],
)
def test_no_window_beats_the_bound_and_a_good_one_comes_near(
    mu_in: float, mu_out: float, tightness: float
) -> None:
    count = 1500
    bound = makespan_bound(demand_of(workload(count, mu_in, mu_out)), PROFILE, CONFIG)
    times = [makespan(workload(count, mu_in, mu_out), window) for window in (32, 256, 512)]
    assert bound < min(times)
    assert bound / min(times) > tightness


def test_shared_prefixes_are_counted_once() -> None:
    alone = demand_of([SimRequest(n, ((n, 1000), (f"q{n}", 50)), 5) for n in range(10)])
    shared = demand_of([SimRequest(n, (("doc", 1000), (f"q{n}", 50)), 5) for n in range(10)])
    assert alone.tokens == 10 * (1050 + 4)
    assert shared.tokens == 992 + 10 * (58 + 4)
    assert shared.occupancy < shared.reads == alone.reads
    assert shared.pairs < alone.pairs


def test_other_salts_and_other_beginnings_share_nothing() -> None:
    salted = [SimRequest(n, (("doc", 160), ("q", 5)), 1, salt=n) for n in range(2)]
    assert demand_of(salted).tokens == 2 * 165
    moved = [SimRequest(n, ((f"a{n}", 16), ("doc", 160)), 1) for n in range(2)]
    assert demand_of(moved).tokens == 2 * 176


def test_more_replicas_take_less_time_but_no_less_than_the_longest_answer() -> None:
    demand = demand_of(workload(1500, 5.0, 5.0))
    times = [makespan_bound(demand, PROFILE, CONFIG, replicas=k) for k in (1, 2, 4, 1000)]
    assert times == sorted(times, reverse=True)
    floor = PROFILE.launch + PROFILE.gemm_floor
    assert times[-1] > demand.longest * floor * 1e-3


def test_less_efficient_engines_have_a_longer_bound() -> None:
    demand = demand_of(workload(100, 5.0, 5.0))
    half = replace(PROFILE, efficiency=0.5)
    assert makespan_bound(demand, half, CONFIG) == pytest.approx(
        2 * makespan_bound(demand, PROFILE, CONFIG)
    )


def test_a_batch_beside_interactive_work_fills_what_that_leaves() -> None:
    live, batch = demand_of(workload(500, 6.2, 5.0)), demand_of(workload(500, 7.3, 4.7, seed=2))
    horizon = 600.0
    alone = batch_bound(demand_of([]), batch, horizon, PROFILE, CONFIG)
    beside = batch_bound(live, batch, horizon, PROFILE, CONFIG)
    assert 0 < beside < alone
    both = live.plus(batch, beside)
    assert makespan_bound(both, PROFILE, CONFIG) == pytest.approx(horizon, rel=1e-3)
    assert batch_bound(live, batch, 1.0, PROFILE, CONFIG) == 0.0
