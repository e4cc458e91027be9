"""The fast engine does, step for step, what the plain one does."""

import random
from collections.abc import Hashable

import pytest
from plain_engine import PlainEngine

from lowtide.engine_sim.engine import SimEngine
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig
from lowtide.engine_sim.state.requests import SimRequest

CONFIGS = {
    "default": SchedulerConfig(max_num_seqs=16, max_num_batched_tokens=128),
    "narrow": SchedulerConfig(max_num_seqs=24, max_num_batched_tokens=32),
    "priority": SchedulerConfig(
        max_num_seqs=16, max_num_batched_tokens=96, scheduling_policy="priority"
    ),
    "threshold": SchedulerConfig(
        max_num_seqs=12, max_num_batched_tokens=40, long_prefill_token_threshold=20
    ),
    "threshold and priority": SchedulerConfig(
        max_num_seqs=12,
        max_num_batched_tokens=40,
        long_prefill_token_threshold=20,
        scheduling_policy="priority",
    ),
    "watermark": SchedulerConfig(max_num_seqs=16, max_num_batched_tokens=256, watermark=0.1),
    "chunk only": SchedulerConfig(
        max_num_seqs=16, max_num_batched_tokens=64, reserve_full_isl=False
    ),
}


def make_request(rng: random.Random, number: int, *, shares: bool) -> SimRequest:
    """Some share a template, some a document as well; the question is always their own."""
    pieces: list[tuple[Hashable, int]] = []
    if shares and rng.random() < 0.6:
        pieces.append((f"template {rng.randrange(2)}", rng.choice((20, 48))))
        if rng.random() < 0.5:
            document = rng.randrange(4)
            pieces.append((f"document {document}", 60 + 17 * document))
    pieces.append((f"question {number}", rng.randint(1, 70)))
    return SimRequest(
        number, pieces, rng.choice((1, 2, rng.randint(1, 60))), priority=rng.choice((0, 0, 5, 100))
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(6))
def test_every_step_is_the_same(name: str, seed: int) -> None:
    rng = random.Random(f"{name} {seed}")
    config, blocks = CONFIGS[name], rng.choice((24, 40, 90))
    profile = PROFILES["8b-h100"]
    fast = SimEngine(profile, config, kv_tokens=blocks * 16)
    plain = PlainEngine(config, blocks)
    number = preemptions = steps = 0
    while steps < 300 or (fast.has_work and steps < 5_000):
        for _ in range(rng.choice((0, 0, 0, 1, 3)) if number < 100 else 0):
            # With a threshold many prompts are computed side by side, and two copies of one block
            # are in use at once: the one case in which the engines differ (see kv.py).
            asked = make_request(rng, number, shares=not config.long_prefill_token_threshold)
            fast.submit(asked, float(steps))
            plain.submit(asked)
            number += 1
        if rng.random() < 0.03 and fast.has_work:
            victim = rng.choice(fast.requests()).id
            fast.abort(victim)
            plain.abort(victim)
        there, here = plain.step(), fast.step(float(steps))
        steps += 1
        if here is None:
            assert there.tokens == 0
            continue
        preemptions += len(here.preempted)
        assert [r.id for r in here.preempted] == there.preempted
        assert (here.load.decodes, here.load.tokens) == (there.decodes, there.tokens)
        assert {r.id for r in here.first_tokens} == set(there.first)
        assert {r.id for r in here.finished} == set(there.finished)
        assert fast.kv.free == len(plain.queue)
        assert (fast.running, fast.waiting) == (len(plain.running), len(plain.waiting))
        assert (here.load.context, here.load.pairs) == (there.context, there.pairs)
    assert not fast.has_work
    assert fast.kv.free == fast.kv.blocks
    assert preemptions or blocks > 24 or name in ("narrow", "watermark")
