"""When batches will be done, and which windows can be kept, from values alone."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lowtide.core.scheduling.fair_queue import OUTPUT_COST
from lowtide.core.scheduling.feasibility import (
    UNKNOWN,
    Backlog,
    Due,
    Feasibility,
    assess_window,
    combine,
    duration,
    sentence,
    work_until_done,
)
from lowtide.core.scheduling.forecast import CapacityForecast
from lowtide.core.usage import Usage
from lowtide.limits import FORECAST_HOURS, OUTPUT_SAMPLES_MIN

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
STEADY = CapacityForecast(NOW, [1.0] * FORECAST_HOURS)
"""A work unit a second."""
HALF = CapacityForecast(NOW, [0.5] * FORECAST_HOURS)


def finish_s(backlog: Iterable[Backlog], forecast: CapacityForecast) -> dict[str, float | None]:
    """Seconds until each batch is done, as a page tells them of one pool."""
    return {each: forecast.seconds_for(work) for each, work in work_until_done(backlog).items()}


def part(
    id: str, org: str = "o", *, cost: float = 3600.0, hours: float = 24, **rest: Any
) -> Backlog:
    return Backlog(
        batch_id=id,
        model="m",
        organization_id=org,
        deadline_at=NOW + timedelta(hours=hours),
        created_at=NOW,
        requests=100,
        planned_tokens=1000,
        planned_cost=cost,
        **rest,
    )


# ---- what is left


def test_nothing_settled_leaves_the_estimate() -> None:
    assert part("a").cost_left == pytest.approx(3600)


def test_a_share_of_the_tokens_is_a_share_of_the_work() -> None:
    half = part("a", settled=90, settled_tokens=500, usage=Usage(input_tokens=1800))
    assert half.cost_left == pytest.approx(1800)


def test_how_the_estimate_erred_is_expected_of_the_rest() -> None:
    usage = Usage(output_tokens=int(3 * 1800 / OUTPUT_COST))
    half = part("a", settled=50, settled_tokens=500, usage=usage)
    believed = OUTPUT_SAMPLES_MIN * 36
    assert half.cost_left == pytest.approx(1800 * (5400 + believed) / (1800 + believed))


def test_an_engine_that_reports_no_usage_is_taken_at_the_estimate() -> None:
    assert part("a", settled=50, settled_tokens=500).cost_left == pytest.approx(1800)


def test_a_plan_that_is_estimated_to_cost_nothing_counts_its_requests() -> None:
    free = part("a", cost=0.0, settled=50, settled_tokens=250)
    assert free.cost_left == pytest.approx(75)


def test_what_is_settled_costs_nothing_more() -> None:
    assert part("a", settled=100, settled_tokens=990).cost_left == 0


# ---- when it ends


def test_a_batch_alone_takes_what_it_costs() -> None:
    assert finish_s([part("a")], STEADY) == {"a": pytest.approx(3600)}


def test_batches_of_one_organization_go_one_after_another() -> None:
    ends = finish_s(
        [part("late", hours=9), part("soon", hours=5), part("first", priority=2)], STEADY
    )
    assert ends == {"first": 3600, "soon": 7200, "late": pytest.approx(10_800)}


def test_organizations_share_and_what_one_leaves_goes_to_the_others() -> None:
    ends = finish_s([part("a", "x"), part("b", "y", cost=7200)], STEADY)
    assert ends == {"a": pytest.approx(7200), "b": pytest.approx(10_800)}


def test_weights_count() -> None:
    ends = finish_s([part("a", "x", weight=3.0), part("b", "y")], STEADY)
    assert ends == {"a": pytest.approx(4800), "b": pytest.approx(7200)}


def test_a_paused_batch_is_in_nobodys_way_and_has_no_end() -> None:
    assert finish_s([part("a"), part("b", "y", paused=True)], STEADY) == {"a": pytest.approx(3600)}


def test_the_work_of_all_is_done_when_the_last_is() -> None:
    parts = [part(f"b{n}", f"o{n % 3}", cost=100.0 * n + 1, weight=1.0 + n % 3) for n in range(30)]
    ends = finish_s(parts, STEADY)
    total = sum(p.cost_left for p in parts)
    assert max(end for end in ends.values() if end is not None) == pytest.approx(total)


# ---- which windows can be kept


def verdict(
    cost: float, hours: float, *others: Backlog, safe: CapacityForecast = STEADY
) -> Feasibility:
    return assess_window(cost, NOW + timedelta(hours=hours), NOW, Due(others), STEADY, safe)


def test_nothing_known_promises_nothing() -> None:
    assert assess_window(1.0, NOW, NOW, Due(), None, None) is UNKNOWN


def test_a_window_with_room_is_feasible() -> None:
    assert verdict(3600, 2) == Feasibility(kept="feasible")


def test_a_window_that_is_too_short_names_the_shortest_that_is_not() -> None:
    found = verdict(3 * 3600, 1)
    assert (found.kept, found.earliest_window_s) == ("infeasible", 3 * 3600)
    assert found.reason == "The batch alone needs about 3 h, and its window ends in 1 h."
    assert sentence(found).endswith("The shortest completion window that could be kept: 3h.")


def test_what_is_due_before_counts_and_what_is_due_later_does_not() -> None:
    assert verdict(3600, 3, part("a", cost=9000, hours=2)).kept == "infeasible"
    assert verdict(3600, 3, part("a", cost=9000, hours=48)).kept == "feasible"
    reason = verdict(3600, 3, part("a", cost=9000, hours=2)).reason
    assert reason is not None and reason.startswith("With what is due before it")


def test_a_usual_week_alone_is_a_risk() -> None:
    found = verdict(5400, 2, safe=HALF)
    assert (found.kept, found.earliest_window_s) == ("at_risk", 3 * 3600)


def test_taking_what_was_promised_to_another_is_a_risk() -> None:
    other = part("a", cost=5 * 3600, hours=5)
    found = verdict(3600, 2, other)
    assert found.kept == "at_risk" and "promised to other batches" in (found.reason or "")
    assert found.earliest_window_s == 6 * 3600


def test_a_promise_that_is_lost_already_is_in_nobodys_way() -> None:
    assert verdict(3600, 2, part("a", cost=50 * 3600, hours=5)).kept == "feasible"


def test_a_batch_that_no_window_fits_has_no_earliest() -> None:
    found = verdict(200 * 3600, 24)
    assert (found.kept, found.earliest_window_s) == ("infeasible", None)
    assert sentence(found) == found.reason


def test_a_batch_that_runs_is_not_counted_twice() -> None:
    own = part("a", cost=3600, hours=1.5)
    deadline_at = own.deadline_at
    found = assess_window(own.cost_left, deadline_at, NOW, Due([own]), STEADY, STEADY, counted=True)
    assert found.kept == "feasible"


def test_the_worst_of_the_models_counts_and_the_longest_window() -> None:
    late = Feasibility(kept="infeasible", reason="late", earliest_window_s=7200)
    later = Feasibility(kept="at_risk", reason="later", earliest_window_s=10_800)
    found = combine([Feasibility(kept="feasible"), later, late])
    assert (found.kept, found.reason, found.earliest_window_s) == ("infeasible", "late", 10_800)
    hopeless = combine([Feasibility(kept="infeasible", reason="never"), later])
    assert hopeless.earliest_window_s is None
    assert combine([]) is UNKNOWN


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "1 min"), (3540, "59 min"), (3600, "1 h"), (5400, "1 h 30 min"), (187_200, "2 d 4 h")],
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words
