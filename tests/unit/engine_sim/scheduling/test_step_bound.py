"""The simulated engine with Lowtide's scheduler class: what batch work may do beside live calls."""

import random
from dataclasses import replace
from typing import Any

import pytest

from lowtide.engine_sim.engine import SimEngine, StepEvents
from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.profiles import PROFILES, StepLoad
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig, step_bound_config
from lowtide.engine_sim.state.requests import SimRequest, State

PROFILE = PROFILES["8b-h100"]
BATCH = 100


def engine(blocks: int = 20_000, **config: Any) -> SimEngine:
    return SimEngine(PROFILE, step_bound_config(**config), kv_tokens=16 * blocks)


def ask(name: str, prompt: int, output: int, priority: int = 0) -> SimRequest:
    live = priority == 0
    return SimRequest(name, ((name, prompt),), output, priority, interactive=live)


def play(sim: SimEngine, until_s: float, now: float = 0.0) -> tuple[float, list[StepEvents]]:
    events = []
    while now < until_s and (step := sim.step(now)) is not None:
        events.append(step)
        now = step.ended_at
    return now, events


def trained(**config: Any) -> tuple[SimEngine, float]:
    """An engine that has learned its pace from batch work alone, and the time."""
    sim = engine(**config)
    for number in range(100):
        sim.submit(ask(f"early {number}", 100 + 15 * number, 20, BATCH), 0.0)
    now, _ = play(sim, 1e9)
    for number in range(40):
        sim.submit(ask(f"late {number}", 50, 5 + number, BATCH), now)
        now, _ = play(sim, now + 0.05, now)
    return sim, play(sim, 1e9, now)[0]


def load_batch(sim: SimEngine, now: float, count: int = 120) -> list[SimRequest]:
    asked = [ask(f"batch {number}", 1_800, 120, BATCH) for number in range(count)]
    for request in asked:
        sim.submit(request, now)
    return asked


def test_without_live_calls_every_step_is_as_without_the_bound() -> None:
    """Preemptions, chunks and order included, on a cache that is too small."""
    bounded = engine(blocks=60, max_num_seqs=16, max_num_batched_tokens=128)
    stock = SimEngine(PROFILE, replace(bounded.config, step_limits=None), kv_tokens=16 * 60)
    rng, now = random.Random(1), 0.0
    for step in range(600):
        if rng.random() < 0.3 and step < 400:
            prompt, output = rng.randint(1, 200), rng.randint(1, 60)
            for sim in (bounded, stock):
                sim.submit(ask(f"{step}", prompt, output, BATCH), now)
        here, there = bounded.step(now), stock.step(now)
        if here is None or there is None:
            assert here is there
            continue
        assert here.load == there.load and here.duration_s == there.duration_s
        assert [r.id for r in here.preempted] == [r.id for r in there.preempted]
        now = here.ended_at
    assert bounded.counters == stock.counters and bounded.counters.preemptions


def test_beside_a_live_call_no_step_is_longer_than_the_bound() -> None:
    sim, now = trained(bound_s=0.015)
    sim.submit(ask("live", 200, 400), now)
    load_batch(sim, now)
    _, events = play(sim, now + 4, now)
    beside = [e.duration_s for e in events if e.interactive_decodes]
    assert len(beside) > 200
    assert max(beside) < 1.1 * 0.015
    assert sorted(beside)[len(beside) // 2] > 0.012, "the room under the bound is used"


@pytest.mark.parametrize("users", [1, 60])
def test_with_the_tolerance_alone_the_bound_follows_from_what_live_calls_would_take(
    users: int,
) -> None:
    sim, now = trained(tolerance=1.6)
    for number in range(users):
        sim.submit(ask(f"live {number}", 600, 300), now)
    load_batch(sim, now)
    now, _ = play(sim, now + 1, now)
    _, events = play(sim, now + 2, now)
    beside = sorted(e.duration_s for e in events if e.interactive_decodes == users)
    generating, shortest = (
        PROFILE.step_ms(StepLoad(calls, calls, 0, calls, calls * 700)) for calls in (users, 1)
    )
    assert len(beside) > 50
    bound_s = 1e-3 * (generating + 0.6 * shortest)
    assert 0.9 < beside[len(beside) // 2] / bound_s < 1.05


def test_all_live_calls_that_wait_count_before_the_batch_gets_its_part() -> None:
    sim, now = trained(bound_s=0.03)
    load_batch(sim, now)
    now, _ = play(sim, now + 1, now)
    asked = [ask(f"live {number}", 800, 5) for number in range(3)]
    for request in asked:
        sim.submit(request, now)
    step = sim.step(now)
    assert step is not None and set(asked) <= set(step.first_tokens)
    alone = replace(step.load, tokens=2_400, decodes=0, context=0, prefills=3, sampled=3)
    assert step.duration_s < 1.05 * PROFILE.step_ms(alone) * 1e-3


def test_a_live_prompt_is_computed_in_its_first_step_whatever_the_batch_wants() -> None:
    sim, now = trained(bound_s=0.015)
    load_batch(sim, now)
    now, _ = play(sim, now + 1, now)
    assert sim.waiting
    live = ask("live", 3_000, 5)
    sim.submit(live, now)
    step = sim.step(now)
    assert step is not None and live in step.first_tokens
    # Nothing of the batch but what its decodes are owed.
    alone = replace(step.load, tokens=3_000, decodes=0, context=0, prefills=1, sampled=1)
    assert step.duration_s < 1.05 * PROFILE.step_ms(alone) * 1e-3


def test_batch_calls_that_generate_get_a_token_at_least_each_half_second() -> None:
    sim, now = trained(bound_s=0.009)
    asked = load_batch(sim, now, 100)
    now, _ = play(sim, now + 1.5, now)
    decoding = [r for r in asked if r.state is State.DECODING]
    assert len(decoding) > 30
    for number in range(12):
        sim.submit(ask(f"live {number}", 600, 300), now)
    made, since = {r: sim.made(r) for r in decoding}, dict.fromkeys(decoding, now)
    while now < 6 and (step := sim.step(now)) is not None:
        now = step.ended_at
        for request in decoding:
            if request.state is not State.DECODING or sim.made(request) > made[request]:
                made[request], since[request] = sim.made(request), now
            assert now - since[request] < 0.5 + 3 * step.duration_s


def test_a_live_call_takes_seats_and_memory_from_batch_calls() -> None:
    sim, now = trained(max_num_seqs=8)
    load_batch(sim, now, 8)
    now, _ = play(sim, now + 0.3, now)
    assert sim.running == 8
    live = ask("live", 500, 5)
    sim.submit(live, now)
    step = sim.step(now)
    assert step is not None and live in step.first_tokens
    assert [r.priority for r in step.preempted] == [BATCH]


def test_all_that_was_asked_is_answered_in_full() -> None:
    sim, now = trained(bound_s=0.01)
    asked = load_batch(sim, now, 40) + [ask(f"live {n}", 300, 200) for n in range(5)]
    for request in asked[40:]:
        sim.submit(request, now)
    play(sim, 1e9, now)
    assert not sim.has_work and sim.kv.free == sim.kv.blocks
    assert all(r.made == r.output_tokens for r in asked)


def test_the_bound_needs_priorities_and_is_one_of_vllm() -> None:
    with pytest.raises(ValueError, match="priority"):
        SchedulerConfig(step_limits=step_bound_config().step_limits)
    with pytest.raises(ValueError, match="vLLM"):
        ServerOptions(face="sglang", batch_scheduler="step-bound")
    with pytest.raises(ValueError, match="step-bound"):
        ServerOptions(itl_bound_ms=20)
    limits = ServerOptions(batch_scheduler="step-bound", itl_bound_ms=20).scheduler_config()
    assert limits.step_limits is not None and limits.step_limits.bound_s == 0.02
