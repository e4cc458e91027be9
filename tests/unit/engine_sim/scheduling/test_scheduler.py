"""vLLM's scheduling rules, one by one; `test_against_plain_engine` has them all at once."""

from typing import Any

import pytest

from lowtide.engine_sim.engine import SimEngine, StepEvents
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig, sglang_config
from lowtide.engine_sim.state.requests import SimRequest, State


def engine(blocks: int = 1000, **config: Any) -> SimEngine:
    return SimEngine(PROFILES["8b-h100"], SchedulerConfig(**config), kv_tokens=16 * blocks)


def ask(name: str, prompt: int = 32, output: int = 10, **fields: Any) -> SimRequest:
    return SimRequest(name, ((name, prompt),), output, **fields)


def step(sim: SimEngine, times: int = 1) -> StepEvents:
    events = None
    for _ in range(times):
        events = sim.step(0.0)
    assert events is not None
    return events


def names(requests: list[SimRequest]) -> list[str | int]:
    return [request.id for request in requests]


def test_a_long_prompt_is_computed_in_chunks_of_the_steps_budget() -> None:
    sim = engine(max_num_batched_tokens=100, max_num_seqs=10)
    sim.submit(ask("long", 250, 3), 0.0)
    assert [step(sim).load.tokens for _ in range(3)] == [100, 100, 50]
    assert step(sim).load.decodes == 1


def test_decodes_go_before_the_chunk_of_an_unfinished_prompt() -> None:
    sim = engine(max_num_batched_tokens=64, max_num_seqs=10)
    for name in "abc":
        sim.submit(ask(name, 16), 0.0)
    step(sim)
    sim.submit(ask("long", 200), 0.0)
    load = step(sim).load
    assert (load.decodes, load.prefills, load.tokens) == (3, 1, 64)


def test_admission_is_in_order_of_arrival_and_the_last_one_gets_what_is_left() -> None:
    sim = engine(max_num_batched_tokens=100, max_num_seqs=10)
    for name, prompt in (("a", 40), ("b", 40), ("c", 40), ("d", 1)):
        sim.submit(ask(name, prompt), 0.0)
    events = step(sim)
    assert names(events.admitted) == ["a", "b", "c"]
    assert names(events.first_tokens) == ["a", "b"]
    assert names(step(sim).first_tokens) == ["c", "d"]


def test_no_more_requests_run_than_there_are_seats() -> None:
    sim = engine(max_num_seqs=2)
    for name in "abc":
        sim.submit(ask(name, output=5), 0.0)
    step(sim)
    assert (sim.running, sim.waiting) == (2, 1)


def test_a_prompt_that_does_not_fit_whole_waits_and_preempts_nobody() -> None:
    sim = engine(blocks=10, max_num_batched_tokens=32, max_num_seqs=10)
    sim.submit(ask("small", 64, 20), 0.0)
    step(sim, 3)
    sim.submit(ask("large", 128, 4), 0.0)  # its first chunk would fit
    assert step(sim).preempted == []
    assert (sim.running, sim.waiting) == (1, 1)


def test_without_the_full_prompt_rule_the_first_chunk_suffices() -> None:
    sim = engine(blocks=10, max_num_batched_tokens=32, max_num_seqs=10, reserve_full_isl=False)
    sim.submit(ask("small", 64, 20), 0.0)
    step(sim, 3)
    sim.submit(ask("large", 128, 4), 0.0)
    step(sim)
    assert sim.running == 2


def test_the_watermark_stays_free_at_admission() -> None:
    sim = engine(blocks=10, watermark=0.3)
    sim.submit(ask("a", 96, 2), 0.0)
    sim.submit(ask("b", 30, 2), 0.0)
    step(sim)
    assert (sim.running, sim.waiting) == (1, 1)


def full_engine(**config: Any) -> SimEngine:
    """Three requests of 4 blocks in 12, about to need a fifth each."""
    sim = engine(blocks=12, max_num_seqs=8, **config)
    for name, priority in (("a", 5), ("b", 9), ("c", 5)):
        sim.submit(ask(name, 64, 30, priority=priority), 0.0)
    step(sim)
    assert sim.kv.free == 0
    return sim


def test_who_needs_a_block_when_none_is_free_preempts_the_last_admitted() -> None:
    sim = full_engine()
    sim.submit(ask("small", 1, 1), 0.0)
    events = step(sim)
    assert names(events.preempted) == ["c"]
    assert events.admitted == []  # nobody is admitted in a step that preempted
    assert (sim.running, sim.waiting) == (2, 2)


def test_under_priorities_the_worst_and_latest_is_preempted() -> None:
    assert names(step(full_engine(scheduling_policy="priority")).preempted) == ["b"]


def test_a_preempted_request_starts_over_and_loses_no_token() -> None:
    sim = full_engine()
    step(sim)
    preempted = next(r for r in sim.requests() if r.id == "c")
    assert (preempted.state, preempted.made, preempted.computed) == (State.WAITING, 1, 0)
    resumed = []
    while sim.has_work:
        resumed += step(sim).resumed
    assert preempted in resumed
    assert preempted.state is State.FINISHED
    assert sim.counters.generation_tokens == 90
    assert sim.counters.preemptions >= 1
    assert sim.kv.free == 12


def test_a_preempted_request_goes_to_the_front_of_the_queue() -> None:
    sim = full_engine()
    sim.submit(ask("later", 16, 1), 0.0)
    step(sim)
    admitted = []
    while sim.has_work:
        admitted += names(step(sim).admitted)
    assert admitted[:2] == ["c", "later"]


def test_waiting_requests_are_taken_by_priority_then_arrival() -> None:
    sim = engine(max_num_seqs=1, scheduling_policy="priority")
    for name, priority in (("low", 100), ("high", 0), ("middle", 5), ("high too", 0)):
        sim.submit(ask(name, output=1, priority=priority), 0.0)
    order = [names(step(sim).finished)[0] for _ in range(4)]
    assert order == ["high", "high too", "middle", "low"]


def test_a_waiting_request_of_higher_rank_takes_no_seat_from_a_running_one() -> None:
    sim = engine(max_num_seqs=1, scheduling_policy="priority")
    sim.submit(ask("low", priority=100), 0.0)
    step(sim)
    sim.submit(ask("high"), 0.0)
    assert step(sim).preempted == []


def test_with_seat_preemption_it_does() -> None:
    sim = engine(max_num_seqs=1, scheduling_policy="priority", preempts_for_rank=True)
    sim.submit(ask("low", priority=100), 0.0)
    step(sim)
    sim.submit(ask("high", output=2), 0.0)
    events = step(sim)
    assert (names(events.preempted), names(events.first_tokens)) == (["low"], ["high"])
    assert events.load.decodes == 0
    assert names(step(sim, 2).resumed) == ["low"]


def test_seat_preemption_frees_kv_as_well_but_only_if_that_is_enough() -> None:
    config: dict[str, Any] = {"scheduling_policy": "priority", "preempts_for_rank": True}
    sim = engine(blocks=20, **config)
    sim.submit(ask("equal", 128, 20), 0.0)
    sim.submit(ask("low", 128, 20, priority=9), 0.0)
    step(sim)
    sim.submit(ask("too large", 250, 2), 0.0)
    assert step(sim).preempted == []
    sim.abort("too large")
    sim.submit(ask("fits", 100, 2), 0.0)
    assert names(step(sim).preempted) == ["low"]


def test_a_threshold_bounds_each_prompts_chunk() -> None:
    sim = engine(max_num_batched_tokens=100, max_num_seqs=9, long_prefill_token_threshold=30)
    for name in "ab":
        sim.submit(ask(name, 70), 0.0)
    loads = [step(sim).load for _ in range(3)]
    assert [(load.tokens, load.prefills) for load in loads] == [(60, 2), (60, 2), (20, 2)]


def test_sglang_preempts_for_a_gap_of_more_than_ten() -> None:
    sim = SimEngine(PROFILES["8b-h100"], sglang_config(max_num_seqs=1, by_priority=True))
    sim.submit(ask("running", priority=0), 0.0)
    step(sim)
    sim.submit(ask("ten better", priority=-10), 0.0)
    assert step(sim).preempted == []
    sim.submit(ask("eleven better", priority=-11), 0.0)
    assert names(step(sim).preempted) == ["running"]


def test_sglang_takes_the_longest_cached_prefix_first_while_few_wait() -> None:
    def first_admitted(waiting: int) -> str | int:
        sim = SimEngine(PROFILES["8b-h100"], sglang_config(max_num_seqs=1))
        sim.submit(SimRequest("warm", (("shared", 160), ("w", 5)), 3), 0.0)
        step(sim)
        for n in range(waiting - 1):
            sim.submit(ask(f"cold {n}"), 0.0)
        sim.submit(SimRequest("warmer", (("shared", 160), ("x", 5)), 3), 0.0)
        step(sim, 2)
        return names(step(sim).admitted)[0]

    assert first_admitted(128) == "warmer"
    assert first_admitted(129) == "cold 0"


def test_sglang_retracts_who_has_generated_least() -> None:
    sim = SimEngine(PROFILES["8b-h100"], sglang_config(max_num_seqs=8), kv_tokens=16 * 12)
    sim.submit(ask("old", 48, 60), 0.0)
    step(sim, 8)
    sim.submit(ask("young", 64, 60), 0.0)
    sim.submit(ask("younger", 48, 60), 0.0)
    while not (events := step(sim)).preempted:
        pass
    assert names(events.preempted) == ["young"]  # as few tokens as the younger, a longer prompt


def test_an_abort_gives_everything_back_even_in_the_middle_of_a_step() -> None:
    sim = engine(blocks=100)
    for name in "abc":
        sim.submit(ask(name, 64, 30), 0.0)
    step(sim, 3)
    sim.submit(ask("new", 64), 0.0)
    sim.begin_step(0.0)
    for name in ("a", "new"):
        assert sim.abort(name) is not None
    events = sim.end_step()
    assert (events.load.decodes, events.first_tokens) == (2, [])
    assert sim.abort("a") is None
    while sim.has_work:
        step(sim)
    assert sim.kv.free == 100
    assert sim.counters.generation_tokens == 3 + 2 * 29 + 2


def test_what_could_never_run_is_refused_at_once() -> None:
    sim = engine(blocks=10)
    with pytest.raises(ValueError, match="do not fit"):
        sim.submit(ask("huge", 150, 11), 0.0)
    sim.submit(ask("twice"), 0.0)
    with pytest.raises(ValueError, match="here already"):
        sim.submit(ask("twice"), 0.0)
    with pytest.raises(ValueError, match="max_num_seqs"):
        SchedulerConfig(max_num_seqs=10, max_num_batched_tokens=9)


def test_step_times_follow_the_formula() -> None:
    profile = PROFILES["8b-h100"]
    sim = SimEngine(profile)
    sim.submit(ask("a", 1000, 3), 0.0)
    prefill = 0.6 + 0.004 + 0.0178 * 1000 + 0.36 + 0.0011 + 0.3 + 0.79e-6 * 1000 * 500
    assert step(sim).duration_s == pytest.approx(prefill * 1e-3)
    decode = 0.6 + 0.004 + 5.4 + 0.0041 + 0.36 + 0.0011 + 0.5 + 40.5e-6 * 1001
    assert step(sim).duration_s == pytest.approx(decode * 1e-3)
    sim.slowness = 3.0
    assert step(sim).duration_s == pytest.approx(3e-3 * (decode + 40.5e-6))


def test_noise_varies_steps_and_is_the_same_for_the_same_seed() -> None:
    def durations(seed: int) -> list[float]:
        sim = SimEngine(PROFILES["8b-h100"], noise=0.03, seed=seed)
        sim.submit(ask("a", output=20), 0.0)
        return [step(sim).duration_s for _ in range(20)]

    assert durations(1) == durations(1) != durations(2)
