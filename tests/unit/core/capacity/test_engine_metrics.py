"""core/capacity/engine_metrics.py: what two readings of an engine say together."""

import pytest

from lowtide.core.capacity.engine_metrics import EngineMetrics, metrics_delta, quantile

INF = float("inf")


def test_counters_give_what_was_added() -> None:
    before = EngineMetrics(preemptions_total=3, prompt_tokens_total=100, cached_tokens_total=10)
    after = EngineMetrics(preemptions_total=5, prompt_tokens_total=400, cached_tokens_total=60)
    change = metrics_delta(before, after, 0.5)
    assert (change.preemptions, change.prompt_tokens, change.cached_tokens) == (2, 300, 50)


def test_after_a_restart_only_what_came_since_counts() -> None:
    before = EngineMetrics(preemptions_total=90, generation_tokens_total=1e6)
    after = EngineMetrics(preemptions_total=1, generation_tokens_total=50)
    change = metrics_delta(before, after, 0.5)
    assert (change.preemptions, change.generation_tokens) == (1, 50)


def test_what_is_not_told_is_no_event() -> None:
    assert metrics_delta(EngineMetrics(), EngineMetrics(preemptions_total=7), 0.5).preemptions == 0
    assert metrics_delta(EngineMetrics(preemptions_total=7), EngineMetrics(), 0.5).preemptions == 0


def test_gaps_are_those_between_the_readings() -> None:
    before = EngineMetrics(itl_buckets=((0.01, 1000.0), (0.05, 1000.0), (INF, 1000.0)))
    after = EngineMetrics(itl_buckets=((0.01, 1000.0), (0.05, 1100.0), (INF, 1100.0)))
    change = metrics_delta(before, after, 0.5)
    assert change.itl_p50_s == pytest.approx(0.03)
    assert change.itl_p99_s == pytest.approx(0.0496)


def test_an_engine_that_restarted_or_changed_its_buckets_tells_no_gaps_at_once() -> None:
    before = EngineMetrics(itl_buckets=((0.01, 1000.0), (INF, 1000.0)))
    restarted = EngineMetrics(itl_buckets=((0.01, 5.0), (INF, 6.0)))
    changed = EngineMetrics(itl_buckets=((0.02, 2000.0), (INF, 2000.0)))
    assert metrics_delta(before, restarted, 0.5).itl_p50_s is None
    assert metrics_delta(before, changed, 0.5).itl_p50_s is None


def test_a_quantile_above_the_last_bound_lies_on_it() -> None:
    assert quantile(((0.1, 1.0), (INF, 10.0)), 0.5) == 0.1
    assert quantile((), 0.5) is None
    assert quantile(((0.1, 0.0), (INF, 0.0)), 0.5) is None
