"""Urgency, turns and the whole rule, decided from values alone."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.batches.plan import ChunkSpec, ModelTotals
from lowtide.core.scheduling.fair_queue import (
    OUTPUT_COST,
    Capacity,
    Entry,
    Tenant,
    WeightedFairQueue,
    planned_cost,
    urgent,
    work_of,
)
from lowtide.core.usage import Usage
from lowtide.limits import OUTPUT_TOKENS_ASSUMED

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def entry(id: str, org: str = "o", *, hours: float = 24, cost: float = 100.0, **rest: int) -> Entry:
    return Entry(
        batch_id=id,
        organization_id=org,
        priority=rest.get("priority", 0),
        deadline_at=NOW + timedelta(hours=hours),
        created_at=NOW,
        cost=cost,
    )


def steady(per_hour: float) -> Capacity:
    return lambda until: max(0.0, per_hour * (until - NOW).total_seconds() / 3600)


def names(entries: list[Entry]) -> list[str]:
    return [entry.batch_id for entry in entries]


# ---- urgency


def test_a_batch_with_slack_is_not_urgent() -> None:
    assert urgent([entry("a", hours=10, cost=500)], steady(100)) == []


def test_a_batch_becomes_urgent_when_its_slack_is_gone() -> None:
    late = entry("a", hours=10, cost=900)
    assert names(urgent([late], steady(100), margin=0, guard_s=0)) == []
    assert names(urgent([late], steady(91), margin=0.02, guard_s=0)) == ["a"]


def test_the_guard_makes_it_urgent_sooner() -> None:
    batch = entry("a", hours=10, cost=980)
    assert urgent([batch], steady(100), margin=0, guard_s=0) == []
    assert names(urgent([batch], steady(100), margin=0, guard_s=1200)) == ["a"]


def test_several_batches_cannot_all_begin_at_their_own_last_moment() -> None:
    """Each alone has nine hours of slack; together they have none."""
    batches = [entry(f"b{n}", hours=10, cost=100) for n in range(10)]
    assert len(urgent(batches, steady(100), margin=0, guard_s=0)) == 10
    assert urgent(batches[:9], steady(100), margin=0, guard_s=0) == []


def test_everything_due_before_the_last_tight_deadline_is_urgent_in_its_order() -> None:
    easy, tight, far = (
        entry("easy", hours=5, cost=10),
        entry("tight", hours=10, cost=980),
        entry("far", hours=100, cost=10),
    )
    found = urgent([far, tight, easy], steady(100), margin=0.05, guard_s=0)
    assert names(found) == ["easy", "tight"]


def test_what_cannot_be_met_does_not_take_the_others_along() -> None:
    lost = entry("lost", hours=1, cost=10_000)
    kept = entry("kept", hours=2, cost=190)
    assert names(urgent([lost, kept], steady(100), margin=0.1, guard_s=0)) == ["kept"]


def test_a_batch_past_its_deadline_is_not_urgent() -> None:
    assert urgent([entry("a", hours=-1)], steady(100)) == []


@given(
    st.lists(st.tuples(st.floats(0.1, 50), st.floats(1, 500)), max_size=12),
    st.floats(10, 200),
)
def test_urgent_batches_fit_before_their_deadlines(
    batches: list[tuple[float, float]], per_hour: float
) -> None:
    entries = [entry(f"b{n}", hours=h, cost=c) for n, (h, c) in enumerate(batches)]
    work = 0.0
    for found in urgent(entries, steady(per_hour)):
        work += found.cost
        assert work <= steady(per_hour)(found.deadline_at) * (1 + 1e-9)


# ---- turns


def test_the_least_virtual_time_is_next_and_ties_go_by_name() -> None:
    turns = WeightedFairQueue()
    turns.join("b", Tenant())
    turns.join("a", Tenant())
    assert turns.first() == "a"
    turns.charge("a", 1.0)
    assert turns.first() == "b"


def test_who_left_has_no_turn_and_nobody_is_first_of_none() -> None:
    turns = WeightedFairQueue()
    assert turns.first() is None
    turns.join("a", Tenant(5.0))
    assert turns.leave("a") == Tenant(5.0)
    assert turns.first() is None
    with pytest.raises(KeyError):
        turns.leave("a")


@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers(0, 1000))
def test_shares_follow_the_weights_whatever_the_chunks_cost(weights: list[int], seed: int) -> None:
    rng = random.Random(seed)
    turns, given_work = WeightedFairQueue(), dict.fromkeys(map(str, range(len(weights))), 0.0)
    for n, weight in enumerate(weights):
        turns.join(str(n), Tenant(weight=weight))
    largest = 20.0
    for _ in range(3000):
        name = turns.first()
        assert name is not None
        cost = rng.uniform(1, largest)
        given_work[name] += cost
        turns.charge(name, cost)
    shares = [given_work[str(n)] / weight for n, weight in enumerate(weights)]
    assert max(shares) - min(shares) <= largest, "a chunk apart at most"


# ---- what work costs


def test_work_counts_output_more_and_cached_input_less() -> None:
    usage = Usage(input_tokens=100, cached_tokens=50, output_tokens=10)
    assert work_of(usage) == pytest.approx(50 + 5 + OUTPUT_COST * 10)


@pytest.mark.parametrize(
    ("endpoint", "learnt", "bound", "output"),
    [
        ("/v1/embeddings", 50.0, 0, 0.0),
        ("/v1/chat/completions", None, 0, OUTPUT_TOKENS_ASSUMED),
        ("/v1/chat/completions", 50.0, 0, 50.0),
        ("/v1/chat/completions", 50.0, 400, 40.0),
        ("/v1/chat/completions", 5.0, 400, 5.0),
    ],
)
def test_a_plan_expects_answers_as_learnt_and_as_the_lines_allow(
    endpoint: str, learnt: float | None, bound: int, output: float
) -> None:
    spec = ChunkSpec(0, "m", 0, 4, 100, 1000)
    share = ModelTotals(requests=10, input_tokens=250, output_tokens=bound)
    assert planned_cost(spec, share, learnt, endpoint) == 100 + OUTPUT_COST * output * 4
