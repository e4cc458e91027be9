"""The window that is learned from answers, against queueing models in virtual time."""

import random
from itertools import pairwise

import pytest

from lowtide import limits
from lowtide.core.capacity.latency_window import LatencyWindow, work_of
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.usage import Usage
from tests.unit.core.capacity.queue_models import (
    Engine,
    batching,
    loading,
    servers,
    shared,
    unlimited,
)
from tests.unit.core.dispatch import dispatch_cases

_dice = random.Random(9)
MIXED = tuple(0.1 * 100 ** _dice.random() for _ in range(997))
"""Lengths that differ by a factor of a hundred."""


@pytest.mark.parametrize("call_s", [0.05, 0.5, 2.0, 30.0])
def test_a_serial_engine_ends_with_a_call_or_two_and_computes_no_answer_twice(
    call_s: float,
) -> None:
    run = Engine(servers(1), (call_s,), timeout_s=600.0).work(100)
    assert run.window <= 2
    assert run.widest <= 2
    assert run.calls == 100
    assert run.took_s == pytest.approx(100 * call_s)


@pytest.mark.parametrize("call_s", [0.5, 2.0, 3.0, 4.9])
def test_a_serial_engine_never_makes_a_call_wait_until_its_time_is_up(call_s: float) -> None:
    run = Engine(servers(1), (call_s,), timeout_s=5.0).work(60)
    assert (run.timeouts, run.lost, run.calls) == (0, [], 60)


def test_where_half_the_time_out_is_too_short_for_two_calls_there_is_one() -> None:
    assert Engine(servers(1), (3.0,), timeout_s=5.0).work(60).widest == 1


def test_a_serial_engine_with_answers_of_any_length_stays_narrow() -> None:
    run = Engine(servers(1), MIXED).work(300)
    assert run.window <= 2
    assert run.widest <= 4
    assert (run.timeouts, run.lost) == (0, [])


def test_a_shared_processor_gets_no_more_than_it_can_use() -> None:
    run = Engine(shared).work(150)
    assert run.window <= 2


@pytest.mark.parametrize("slots", [3, 4, 10])
def test_an_engine_with_slots_gets_all_of_them_and_hardly_more(slots: int) -> None:
    run = Engine(servers(slots)).work(1_000)
    assert slots <= run.window <= 2 * slots
    assert run.took_s <= 1.1 * 1_000 / slots


def test_an_engine_that_answers_at_once_gets_its_ceiling_in_a_few_round_trips() -> None:
    run = Engine(unlimited, (0.05,)).work(2_000)
    assert run.first_s(64) <= 4 * 0.05
    assert run.window == 64


def test_an_engine_of_a_second_a_call_gets_256_calls_in_eight_round_trips() -> None:
    run = Engine(unlimited, (1.0,), window=256).work(3_000)
    assert run.first_s(256) <= 8.0


def test_answers_of_any_length_are_not_mistaken_for_overload() -> None:
    run = Engine(unlimited, MIXED).work(2_000)
    assert run.first_s(64) <= 10.0
    assert run.window == 64


def test_an_engine_that_reports_no_tokens_gets_there_as_well() -> None:
    run = Engine(unlimited, MIXED, tells=False).work(5_000)
    assert run.window == 64


def test_an_engine_that_computes_calls_together_grows_while_it_gains() -> None:
    run = Engine(batching(0.05)).work(2_000)
    assert run.window == 64  # 64 calls take four times as long as one, and are 16 times the work


@pytest.mark.parametrize("load_s", [60.0, 120.0])
def test_a_model_that_loads_loses_no_line_and_ends_narrow(load_s: float) -> None:
    run = Engine(loading, (0.5,), then=(load_s, servers(1))).work(200)
    assert (run.timeouts, run.lost) == (0, [])
    assert run.window <= 2
    assert run.took_s == pytest.approx(load_s + 100.0)


def test_more_slots_are_found_when_an_engine_gets_them() -> None:
    run = Engine(servers(1), then=(100.0, servers(4))).work(1_500)
    assert run.window >= 4
    assert run.took_s <= 100.0 + 1.1 * 1_400 / 4


def test_a_window_of_one_is_tried_again_when_an_engine_gets_slots() -> None:
    engine = Engine(servers(1), (2.0,), timeout_s=5.0, then=(200.0, servers(8)))
    run = engine.work(1_000)
    assert run.window >= 8
    assert run.lost == []


def test_an_engine_that_turns_serial_loses_no_line_and_is_found_out() -> None:
    run = Engine(unlimited, timeout_s=30.0, then=(10.0, servers(1))).work(800)
    assert run.lost == []
    assert run.window <= 2


def test_a_limit_on_calls_at_once_is_kept_by_refusals() -> None:
    run = Engine(unlimited, room=8).work(400)
    assert run.lost == []
    assert run.window <= 9
    assert run.took_s <= 1.3 * 400 / 8


def test_calls_that_do_not_fill_the_window_teach_nothing() -> None:
    window = LatencyWindow(64, width=8)
    for n in range(1_000):
        window.answered(float(n), n + 1.0, 1.0, 7)
    assert window.width == 8


def test_a_time_out_halves_the_window_once_for_all_calls_sent_before() -> None:
    window = LatencyWindow(64, width=32)
    for _ in range(32):
        window.timed_out(0.0, 600.0)
    assert window.width == 16
    window.timed_out(601.0, 1_201.0)
    assert window.width == 8


def test_an_answer_of_an_engine_without_usage_counts_as_one() -> None:
    assert work_of(Usage()) == 1.0
    assert work_of(Usage(100, 60, 50)) == 1.0 + 50 + 4


def test_refusals_are_tried_again_later_and_later() -> None:
    run = Engine(servers(1), (1.0,)).work(4_000)
    tries = [at_s for at_s, width in run.widths if width == 4]
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) >= 3
    assert gaps == sorted(gaps)
    assert max(gaps) <= limits.LEARN_HOLD_S_MAX + 100.0


def test_a_bad_file_does_not_crawl_and_leaves_a_serial_engine_narrow() -> None:
    engine = Engine(servers(1))
    core, one = engine.core, engine.replica
    dispatch_cases.add(core, 128, "bad")
    for n in range(128):
        request = core.take(one, 0.05 * n)
        assert request is not None
        core.settle(request, one, dispatch_cases.REFUSED, 0.05 * (n + 1), 0.5)
    assert one.window == limits.LEARN_REFUSED_MAX
    engine.now_s = 10.0
    run = engine.work(200)
    assert run.window <= 2


def test_live_calls_take_a_learned_replica_to_hold_what_was_learned() -> None:
    engine = Engine(servers(1))
    assert engine.replica.assumed_capacity == 64
    engine.work(100)
    assert engine.replica.assumed_capacity == 2


# ---- calls that hang ----


def unlearned(window: int = 64, timeout_s: float = 600.0) -> Replica:
    learned = LatencyWindow(window, timeout_s=timeout_s)
    return Replica("http://a", frozenset({"m"}), window, learned=learned)


def after(core: Dispatch, one: Replica, now_s: float) -> list[Request]:
    core.spread_remaining([one], now_s, is_dry=False)
    return dispatch_cases.take_all(core, one, now_s)


def test_a_first_call_that_hangs_keeps_the_others_waiting_for_a_while_and_not_for_ever() -> None:
    core, one = Dispatch(), unlearned()
    dispatch_cases.add(core, 100)
    (hanging,) = after(core, one, 0.0)
    assert after(core, one, limits.LEARN_SILENCE_S - 1.0) == []
    (second,) = after(core, one, limits.LEARN_SILENCE_S)
    assert after(core, one, 10 * limits.LEARN_SILENCE_S) == [], "one is enough to show it"
    now_s = limits.LEARN_SILENCE_S + 1.0
    core.settle(second, one, dispatch_cases.OK, now_s, 0.5)
    done = 1
    while done < 99:
        now_s += 1.0
        taken = after(core, one, now_s)
        assert taken, "the window grows past the one that hangs"
        for request in taken:
            core.settle(request, one, dispatch_cases.OK, now_s + 0.5, 0.5)
        done += len(taken)
    assert one.in_flight == 1
    assert hanging.run.unfinished == 1
    assert now_s < 90


def test_a_window_of_the_operator_is_never_passed() -> None:
    core, one = Dispatch(), unlearned(window=1)
    dispatch_cases.add(core, 3)
    assert len(after(core, one, 0.0)) == 1
    assert after(core, one, 500.0) == []


def test_where_calls_are_known_to_be_long_none_is_sent_beside_a_silent_one() -> None:
    core, one = Dispatch(), unlearned(timeout_s=100.0)
    dispatch_cases.add(core, 9)
    (first,) = after(core, one, 0.0)
    core.settle(first, one, dispatch_cases.OK, 60.0, 0.5)
    assert len(after(core, one, 60.0)) == 1
    assert after(core, one, 60.0 + limits.LEARN_SILENCE_S) == []
