"""How many replicas a model needs: at the latest moment, never fewer than what is in flight."""

from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.core.scheduling.operating_hours import OperatingHours
from lowtide.core.scheduling.wanted_replicas import (
    Held,
    ModelLoad,
    OpenTime,
    Wanted,
    damped,
    held_after,
    wanted_replicas,
)
from testkit.scaled_pool import (
    COLD_S,
    HOUR,
    RATE,
    START,
    STEP_S,
    PoolJob,
    ScaledPool,
    at_once,
    least_hours,
)

NOW = START


def at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def load(*due: tuple[float, float], **more: Any) -> ModelLoad:
    """`due`: hours until the deadline, and hours of work of one replica."""
    work = tuple((at(hours), busy_h * HOUR * RATE) for hours, busy_h in due)
    known = {"rate": RATE, "cold_start_s": COLD_S, "replicas_max": 8} | more
    return ModelLoad(due=work, **known)


def wanted(one: ModelLoad, hours: OperatingHours | None = None) -> Wanted:
    return wanted_replicas(one, NOW, OpenTime(NOW, hours))


def test_without_work_and_calls_nothing_is_wanted() -> None:
    assert wanted(load(present=3)).replicas == 0


def test_a_model_wakes_at_the_latest_safe_moment_and_not_at_once() -> None:
    found = wanted(load((24, 2)))
    assert found.replicas == 0
    busy_s = limits.SCALE_SAFETY * 2 * HOUR
    assert found.wake_at == at(24) - timedelta(seconds=busy_s + COLD_S)
    assert found.reason == f"scaled to zero, wakes at {found.wake_at:%Y-%m-%d %H:%M} UTC"


def test_at_that_moment_one_is_wanted_and_just_before_it_none() -> None:
    busy_h = limits.SCALE_SAFETY * 2 + COLD_S / HOUR
    assert wanted(load((busy_h + 0.01, 2))).replicas == 0
    assert wanted(load((busy_h - 0.01, 2))).replicas == 1


def test_more_work_than_one_can_do_asks_for_more() -> None:
    found = wanted(load((3, 8), present=1))
    room_h = 3 - COLD_S / HOUR
    assert found.replicas == 1 + int((limits.SCALE_SAFETY * 8 - 3) / room_h)
    assert (found.deadline_at, found.wake_at) == (at(3), NOW)


def test_each_deadline_counts_with_all_that_is_due_before_it() -> None:
    assert wanted(load((1, 0.5), (20, 1), (20.1, 1), present=1)).deadline_at is not None
    together = wanted(load((10, 5), (10.5, 5)))
    assert together.replicas == wanted(load((10.5, 10))).replicas == 1
    assert wanted(load((10, 9), (10.5, 9))).replicas == 2


def test_what_runs_goes_on_while_there_is_work() -> None:
    found = wanted(load((100, 0.1), present=1))
    assert (found.replicas, found.wake_at) == (1, None)
    assert wanted(load((100, 0.1), present=5)).replicas == 1
    assert wanted(load((10, 16), present=3)).replicas == 2, "as many as keep the deadline"


def test_work_whose_deadline_has_passed_is_still_work() -> None:
    assert wanted(load((-1, 0.5))).replicas >= 1


def test_a_deadline_that_no_start_can_keep_asks_for_all_that_may_be() -> None:
    assert wanted(load((0.1, 50))).replicas == 8


def test_a_little_work_with_little_time_is_not_rounded_away() -> None:
    assert wanted(load(((COLD_S + 60) / HOUR, 0.001))).replicas == 1


def test_never_zero_while_calls_of_a_batch_are_in_flight() -> None:
    """A worker that keeps up has no backlog, and is not to be scaled away for that."""
    assert wanted(load(present=3, in_flight=2)).replicas == 1


def test_while_others_call_the_engines_none_is_taken_away() -> None:
    assert wanted(load(present=3, live=1)).replicas == 3
    assert wanted(load((100, 0.1), present=3, live=1)).replicas == 3


def test_no_data_is_not_idle() -> None:
    found = wanted(load(is_known=False, present=0))
    assert not found.trusted
    held = Held(4, at(-1))
    assert damped(found, held, 0, NOW, COLD_S).replicas == 4


def test_an_unknown_speed_asks_for_one_replica_to_learn_it() -> None:
    found = wanted(load((24, 2), rate=None))
    assert (found.replicas, found.trusted) == (1, False)
    assert wanted(load((24, 2), rate=None, present=3)).replicas == 3


def test_there_is_a_most() -> None:
    assert wanted(load((1, 100), replicas_max=5)).replicas == 5


NIGHT = OperatingHours(time(22), time(6), ZoneInfo("UTC"))


def test_work_held_by_its_hours_is_backlog_and_is_woken_for_when_they_open() -> None:
    found = wanted_replicas(load((36, 4)), at(7), OpenTime(at(7), NIGHT))
    assert found.replicas == 0
    assert found.wake_at is not None
    assert found.wake_at > at(7)
    assert found.deadline_at == at(36)
    tight = wanted_replicas(load((31, 8)), at(21.9), OpenTime(at(21.9), NIGHT))
    assert tight.replicas >= 1, "a cold start ahead of the hours"


def test_open_seconds_are_counted_both_ways() -> None:
    opened = OpenTime(NOW, NIGHT)
    assert opened.until(at(6)) == opened.until(at(20)) == 6 * HOUR
    assert opened.until(at(23)) == 7 * HOUR
    assert opened.until(at(-3)) == 0
    assert opened.latest(7 * HOUR) == at(23)
    assert OpenTime(NOW).until(at(5)) == 5 * HOUR


def reported(
    raws: list[tuple[float, int]], hold_s: float = COLD_S, *, trusted: bool = True
) -> list[int]:
    """What is told for raw numbers at these seconds."""
    held, numbers = Held(0, NOW), []
    for second, number in raws:
        now = NOW + timedelta(seconds=second)
        raw = Wanted(replicas=number, trusted=trusted)
        out = damped(raw, held, 0, now, hold_s)
        held = held_after(out, raw, held, now, hold_s)
        numbers.append(out.replicas)
    return numbers


def test_a_number_rises_at_once_and_falls_after_a_cold_start() -> None:
    assert reported([(0, 3), (10, 1), (500, 1), (537, 1), (540, 1)]) == [3, 3, 3, 1, 1]


def test_work_that_comes_and_goes_starts_nothing_anew() -> None:
    flapping = [(60.0 * n, n % 2) for n in range(30)]
    assert set(reported(flapping)[1:]) == {1}


def test_what_is_not_trusted_lowers_nothing_however_long() -> None:
    assert reported([(0, 3), (9_999, 0), (99_999, 0)], trusted=False) == [3, 3, 3]


def test_after_a_start_what_is_present_counts_as_told() -> None:
    idle = Wanted(replicas=0)
    assert damped(idle, None, 4, NOW, COLD_S).replicas == 4


@given(
    due=st.lists(st.tuples(st.floats(-5, 168), st.floats(0, 50)), max_size=6),
    present=st.integers(0, 8),
    calls=st.integers(0, 3),
)
def test_it_is_within_bounds_and_more_work_never_asks_for_less(
    due: list[tuple[float, float]], present: int, calls: int
) -> None:
    ordered = sorted(due)
    one = load(*ordered, present=present, in_flight=calls)
    found = wanted(one).replicas
    assert 0 <= found <= 8
    assert found or not calls
    more = load(*[(hours, 2 * busy) for hours, busy in ordered], present=present, in_flight=calls)
    assert wanted(more).replicas >= found


DAY = (
    PoolJob(9.0, 24.0, 5.0),
    PoolJob(11.5, 6.0, 3.0),
    PoolJob(14.0, 24.0, 9.0),
    PoolJob(20.0, 12.0, 4.0),
)


@pytest.mark.parametrize("estimate", [0.8, 1.0, 1.2])
def test_a_week_of_batches_costs_little_more_than_a_clairvoyant_would_need(estimate: float) -> None:
    jobs = [
        job._replace(created_h=24 * n + job.created_h, estimate=estimate)
        for n in range(7)
        for job in DAY
    ]
    pool = ScaledPool(jobs)
    pool.run(8 * 24)
    assert (pool.open, pool.late) == ([], 0)
    assert pool.paid_h <= 1.15 * least_hours(jobs)


def test_all_there_may_be_as_soon_as_there_is_work_would_cost_far_more() -> None:
    jobs = [PoolJob(24.0 * n + 10.0, 8.0, 2.0) for n in range(7)]
    ours, eager = ScaledPool(jobs), ScaledPool(jobs, at_once)
    for pool in (ours, eager):
        pool.run(8 * 24)
        assert (pool.open, pool.late) == ([], 0)
    assert ours.paid_h <= 1.15 * least_hours(jobs) < eager.paid_h


def test_a_day_without_work_costs_nothing_and_a_wake_is_never_late() -> None:
    pool = ScaledPool([PoolJob(0.0, 24.0, 2.0), PoolJob(72.0, 1.0, 0.6)])
    pool.run(96)
    assert (pool.open, pool.late, pool.starts) == ([], 0, 2)
    assert pool.paid_s <= 2.6 * HOUR + 2 * (2 * COLD_S + 2 * STEP_S)


@pytest.mark.parametrize("busy_h", [0.05, 0.5, 3.0, 12.0, 60.0])
def test_deadlines_are_kept_from_zero_at_every_size(busy_h: float) -> None:
    pool = ScaledPool([PoolJob(0.0, 24.0, busy_h)])
    pool.run(26)
    assert (pool.open, pool.late) == ([], 0)
