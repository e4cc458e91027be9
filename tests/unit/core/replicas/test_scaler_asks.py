"""When a scaler is asked, and for how many: bounded, damped, and never on what is not known."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.core.replicas.scaler_asks import (
    Bounds,
    ReplicaNeed,
    ScalerAsk,
    ScalerStatus,
    ScalerView,
    late,
    needed_of_all,
    next_ask,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)
HOLD_S = 526.0
LONG_AGO = NOW - timedelta(days=1)


def asked(
    wanted: int, target: int, *, running: int | None = None, changed_at: datetime = LONG_AGO,
    bounds: tuple[int, int] = (0, 8), **more: Any,
) -> int | None:  # fmt: skip
    status = ScalerStatus(target=target, running=target if running is None else running)
    need = ReplicaNeed(replicas=wanted, hold_s=HOLD_S, **more)
    return next_ask(need, status, Bounds(*bounds), changed_at, NOW)


def test_a_number_that_is_there_is_not_asked_for() -> None:
    assert asked(3, 3) is None
    assert asked(0, 0) is None


def test_a_number_rises_at_once_and_within_its_bounds() -> None:
    assert asked(1, 0, changed_at=NOW) == 1
    assert asked(5, 2, running=0, changed_at=NOW) == 5
    assert asked(12, 2, bounds=(0, 4)) == 4
    assert asked(0, 0, bounds=(2, 4)) == 2


def test_what_is_only_held_up_starts_nothing_and_stops_nothing() -> None:
    assert asked(1, 0, needed=0) is None, "it was there at the start, or seemed to be"
    assert asked(3, 3, needed=1) is None
    assert asked(3, 2, needed=1) is None


def test_it_falls_after_the_time_of_a_start_and_not_below_its_bound() -> None:
    for passed_s, number in ((0, None), (HOLD_S - 1, None), (HOLD_S, 1)):
        assert asked(1, 3, changed_at=NOW - timedelta(seconds=passed_s)) == number
    assert asked(0, 3, bounds=(2, 4)) == 2
    assert asked(0, 6, bounds=(0, 4)) == 0


def test_what_is_still_to_come_is_not_taken_back_before_it_could_be_there() -> None:
    once, twice = (NOW - timedelta(seconds=n * HOLD_S) for n in (1.5, 2))
    assert asked(0, 3, running=1, changed_at=once) is None
    assert asked(0, 3, running=1, changed_at=twice) == 0, "it never came"


def test_nothing_goes_to_zero_while_calls_are_in_flight() -> None:
    assert asked(0, 1, in_flight=1) is None
    assert asked(0, 3, in_flight=1) == 1
    assert asked(0, 1, in_flight=0) == 0


def test_what_is_not_trusted_changes_nothing() -> None:
    for wanted in range(5):
        for target in range(5):
            assert asked(wanted, target, trusted=False, bounds=(1, 2)) is None


def test_the_first_replica_is_started_to_learn_how_fast_one_is_and_no_more() -> None:
    assert asked(1, 0, trusted=False, learns=True) == 1
    assert asked(4, 0, trusted=False, learns=True) == 1
    assert asked(4, 1, trusted=False, learns=True) is None
    assert asked(0, 1, trusted=False, learns=True) is None


@given(
    wanted=st.integers(0, 20), target=st.integers(0, 20), running=st.integers(0, 20),
    in_flight=st.integers(0, 3), trusted=st.booleans(), learns=st.booleans(),
    passed_s=st.floats(0, 5 * HOLD_S), low=st.integers(0, 4), more=st.integers(0, 8),
)  # fmt: skip
def test_every_change_is_bounded_known_and_late_enough(
    wanted: int, target: int, running: int, in_flight: int, trusted: bool, learns: bool,
    passed_s: float, low: int, more: int,
) -> None:  # fmt: skip
    number = asked(
        wanted, target, running=running, changed_at=NOW - timedelta(seconds=passed_s),
        bounds=(low, low + max(1, more)), in_flight=in_flight, trusted=trusted, learns=learns,
    )  # fmt: skip
    if number is None:
        return
    assert number != target
    assert min(low, 1) <= number <= low + max(1, more)
    assert number > 0 or in_flight == 0
    assert number > target or (trusted and passed_s >= HOLD_S)
    assert trusted or (target, number) == (0, 1)


def test_of_several_models_the_largest_number_counts_and_all_have_to_be_known() -> None:
    one = ReplicaNeed(replicas=1, hold_s=10, in_flight=2, reason="a")
    two = ReplicaNeed(replicas=3, hold_s=5, in_flight=1, reason="b", trusted=False)
    found = needed_of_all([one, two])
    assert found == ReplicaNeed(
        replicas=3, needed=3, hold_s=10, in_flight=3, reason="b", trusted=False
    )
    assert needed_of_all([]) is None


def test_replicas_that_do_not_come_are_told_once_they_should_have() -> None:
    need, status = ReplicaNeed(replicas=2, hold_s=HOLD_S), ScalerStatus(target=2, running=1)
    for passed_s, is_late in ((HOLD_S, False), (2 * HOLD_S, True)):
        words = late(need, status, NOW - timedelta(seconds=passed_s), NOW)
        assert bool(words) == is_late
    assert words.startswith("2 asked for, 1 running there, and no engine answers")
    assert not late(ReplicaNeed(replicas=2, present=1, hold_s=HOLD_S), status, LONG_AGO, NOW)
    assert not late(need, ScalerStatus(target=0, running=0), LONG_AGO, NOW)


def test_each_failure_waits_longer_up_to_a_bound_and_a_later_row_begins_anew() -> None:
    view, waits = ScalerView(since=NOW), []
    for _ in range(9):
        view = view.failed("no", NOW)
        waits.append(view.again_s)
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert waits[-1] == limits.SCALER_AGAIN_S_MAX
    much_later = NOW + timedelta(seconds=2 * limits.SCALER_AGAIN_S_MAX + 1)
    assert view.failed("no", much_later).again_s == limits.SCALER_AGAIN_S


def test_an_error_is_reported_until_what_was_asked_for_runs() -> None:
    view = ScalerView(since=NOW, asked=ScalerAsk(2, NOW, "why")).failed("it fell", NOW)
    assert view.error_since == NOW
    down = view.with_status(ScalerStatus(target=1, running=1))
    assert (down.error, down.error_since) == ("it fell", NOW)
    up = down.with_status(ScalerStatus(target=2, running=2))
    assert (up.error, up.error_since) == ("", None)


@pytest.mark.parametrize("running", [0, 1])
def test_a_dry_run_never_waits_for_what_it_did_not_ask(running: int) -> None:
    view = ScalerView(since=NOW, asked=ScalerAsk(5, NOW, "why", is_dry=True)).failed("away", NOW)
    assert view.with_status(ScalerStatus(target=running, running=running)).error == ""
