"""What is learned of a model's replicas: their usual number, and how long a start takes."""

from datetime import UTC, datetime, timedelta

import pytest

from lowtide import limits
from lowtide.core.scheduling.replica_starts import ReplicaStarts
from lowtide.core.scheduling.wanted_replicas import Held

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_the_usual_number_follows_what_is_there_and_stays_while_nothing_is() -> None:
    history = ReplicaStarts().seen(4, NOW)
    assert history.usual == 4
    assert history.seen(0, after(9_999)).usual == 4
    moved = history.seen(8, after(limits.PACE_TAU_S))
    assert moved.usual == pytest.approx(4 + 4 * (1 - 1 / 2.718281828), rel=1e-6)
    assert moved.seen(8, after(100 * limits.PACE_TAU_S)).usual == pytest.approx(8)


def test_a_start_takes_from_when_it_was_asked_for_until_one_more_is_there() -> None:
    history = ReplicaStarts().seen(0, NOW).reported(Held(1, NOW), NOW)
    history = history.seen(0, after(300)).reported(Held(1, NOW), after(300))
    history = history.seen(1, after(526)).reported(Held(1, NOW), after(526))
    assert history.cold_starts == (526.0,)
    assert history.asked_at is None
    assert history.cold_start_s(600.0) == 526.0


def test_a_replica_that_nobody_asked_for_is_no_start() -> None:
    history = ReplicaStarts().seen(0, NOW).reported(Held(0, NOW), NOW)
    assert history.seen(2, after(9)).cold_starts == ()
    assert history.cold_start_s(600.0) == 600.0


def test_one_of_ten_starts_may_take_longer() -> None:
    starts = tuple(float(n) for n in range(1, 11))
    assert ReplicaStarts(cold_starts=starts).cold_start_s(0.0) == 9.0
    assert ReplicaStarts(cold_starts=(5.0, 7.0)).cold_start_s(0.0) == 7.0


def test_a_start_that_takes_for_ever_and_too_many_starts_are_forgotten() -> None:
    history = ReplicaStarts().seen(0, NOW).reported(Held(1, NOW), NOW)
    late = after(limits.SCALE_COLD_START_S_MAX + 1)
    assert history.seen(1, late).cold_starts == ()
    many = ReplicaStarts(cold_starts=(1.0,) * limits.SCALE_COLD_STARTS_KEPT, asked_at=NOW)
    assert len(many.seen(1, after(9)).cold_starts) == limits.SCALE_COLD_STARTS_KEPT


def test_what_was_asked_for_counts_while_it_can_still_be_under_way() -> None:
    history = ReplicaStarts().seen(1, NOW).reported(Held(3, NOW), NOW)
    assert history.expected(after(100), 60.0) == 3
    assert history.expected(after(121), 60.0) == 1, "nobody seems to start them"
    assert ReplicaStarts().seen(2, NOW).expected(NOW, 60.0) == 2
