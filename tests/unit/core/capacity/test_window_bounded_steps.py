"""core/capacity/window.py with an engine that has the scheduler class: it gets what it holds."""

import pytest

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, EngineMetrics, LiveSeen
from lowtide.core.capacity.preemption import PreemptionPolicy
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.replica import Replica

LIVE = LiveSeen(in_flight=30, waiting=5)


def engine(polls: int, *, bounds_steps: bool) -> EngineMetrics:
    """Live tokens come slowly, and half of the batch calls wait to be let in."""
    slow = ((0.03, 0.0), (0.4, 100.0 * polls), (float("inf"), 100.0 * polls))
    return EngineMetrics(
        running=130,
        waiting=100,
        kv_used=0.5,
        kv_capacity_tokens=100_000,
        prompt_tokens_total=1_000.0 * polls,
        itl_buckets=slow,
        bounds_steps=bounds_steps,
    )


def learned() -> WindowController:
    controller = WindowController(2048)
    for _ in range(500):
        controller.finished(300, 0, 200, 4.0)
    return controller


def polled(controller: WindowController, polls: int, *, bounds_steps: bool) -> None:
    for poll in range(1, polls + 1):
        calls = [BatchCall(1.0, 300)] * controller.window
        controller.observe(
            engine(poll, bounds_steps=bounds_steps), calls, limits.CONTROL_POLL_S * poll, LIVE
        )


def test_the_window_is_what_the_memory_holds_whatever_live_calls_feel() -> None:
    controller = learned()
    polled(controller, 30, bounds_steps=True)
    assert controller.bound == "kv"
    assert controller.window == pytest.approx(0.92 * (1 - controller.live.load) * 250, rel=0.06)
    assert controller.live.load < 0.1
    stock = learned()
    polled(stock, 30, bounds_steps=False)
    assert stock.window < controller.window / 4


def test_no_prompt_is_paced_and_long_ones_are_not_kept_away() -> None:
    controller = learned()
    replica = Replica("http://e", frozenset({"m"}), 64, controller=controller, spares_long=True)
    polled(controller, 4, bounds_steps=True)
    replica.live_asked(50_000, [], 3.0)
    replica.resize(3.0)
    assert replica.controller.pacer.size_to_send(50_000, 50_000, 3.0)
    assert replica.prompt_tokens_max == float("inf")


def test_an_engine_that_says_so_no_more_is_paced_from_that_poll_on() -> None:
    for last in (engine(5, bounds_steps=False), None):
        controller = learned()
        polled(controller, 4, bounds_steps=True)
        assert not controller.pacer.active
        controller.observe(last, [], 2.5, LIVE)
        assert not controller.bounds_steps
        assert controller.pacer.active


def test_no_batch_call_is_aborted_for_live_ones_that_wait() -> None:
    guard = PreemptionPolicy()
    guard.finished(1_000_000, 0.0)
    calls = [BatchCall(1.0, 100)] * 8
    for bounds_steps in (True, False):
        full = EngineMetrics(running=8, seats_max=8, bounds_steps=bounds_steps)
        chosen = guard.revoke(full, calls, [10.0] * 8, LIVE, 0.0, 1.0)
        assert bool(chosen) is not bounds_steps
