"""core/capacity/preemption.py: which batch calls make room for live ones."""

import pytest

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, EngineMetrics, LiveSeen
from lowtide.core.capacity.preemption import PreemptionPolicy

FULL = EngineMetrics(running=64, waiting=2, kv_used=0.96)
CALLS = [BatchCall(float(age), 100) for age in (50, 3, 20, 1, 9)] + [BatchCall(500.0, 100)] * 95
OUTPUTS = [10.0 * call.age_s for call in CALLS]


def experienced() -> PreemptionPolicy:
    guard = PreemptionPolicy()
    guard.finished(1_000_000, 0.0)
    return guard


def test_the_youngest_calls_go_until_what_they_free_is_enough() -> None:
    live = LiveSeen(in_flight=2, waiting=2, tokens_each=200)
    assert experienced().revoke(FULL, CALLS, OUTPUTS, live, 0.0, 1.0) == [3, 1, 4]


def test_as_many_calls_go_as_live_ones_wait_however_much_the_first_frees() -> None:
    live = LiveSeen(in_flight=4, waiting=4, tokens_each=1)
    assert experienced().revoke(FULL, CALLS, OUTPUTS, live, 0.0, 1.0) == [3, 1, 4, 2]


def test_an_engine_with_room_keeps_its_batch_calls() -> None:
    roomy = EngineMetrics(running=64, waiting=2, kv_used=0.5, seats_max=128)
    live = LiveSeen(in_flight=2, waiting=2)
    assert experienced().revoke(roomy, CALLS, OUTPUTS, live, 2.0, 1.0) == []


def test_seats_that_are_all_taken_are_as_good_a_reason_as_memory() -> None:
    seats = EngineMetrics(running=64, waiting=2, kv_used=0.5, seats_max=64)
    live = LiveSeen(in_flight=1, waiting=1, tokens_each=1)
    assert experienced().revoke(seats, CALLS, OUTPUTS, live, 0.0, 1.0) == [3]


@pytest.mark.parametrize("metrics", [None, EngineMetrics(), EngineMetrics(running=9, waiting=1)])
def test_of_an_engine_that_tells_neither_the_waiting_itself_is_believed(
    metrics: EngineMetrics | None,
) -> None:
    live = LiveSeen(in_flight=1, waiting=1, tokens_each=1)
    assert experienced().revoke(metrics, CALLS, OUTPUTS, live, 0.0, 1.0) == [3]


def test_what_only_the_engine_tells_must_be_told_twice() -> None:
    guard = experienced()
    nobody = LiveSeen(tokens_each=1)
    assert guard.revoke(FULL, CALLS, OUTPUTS, nobody, 1.5, 1.0) == []
    assert guard.revoke(FULL, CALLS, OUTPUTS, nobody, 1.5, 1.5) == [3, 1]
    assert guard.revoke(FULL, CALLS, OUTPUTS, nobody, 0.0, 2.0) == []
    assert guard.revoke(FULL, CALLS, OUTPUTS, nobody, 1.5, 2.5) == []


def test_giving_way_costs_at_most_a_twentieth_of_the_work() -> None:
    guard = PreemptionPolicy()
    calls, outputs = [BatchCall(1.0, 100)] * 100, [0.0] * 100
    live = LiveSeen(in_flight=50, waiting=50, tokens_each=1000)
    assert len(guard.revoke(FULL, calls, outputs, live, 0.0, 1.0)) == 5
    assert len(guard.revoke(FULL, calls[5:], outputs[5:], live, 0.0, 1.5)) == 0


def test_ten_minutes_later_it_may_cost_as_much_again() -> None:
    guard = PreemptionPolicy()
    calls, outputs = [BatchCall(1.0, 100)] * 100, [0.0] * 100
    live = LiveSeen(in_flight=50, waiting=50, tokens_each=1000)
    guard.revoke(FULL, calls, outputs, live, 0.0, 1.0)
    later_s = 1.0 + limits.REVOKED_SPAN_S * 1.1
    assert len(guard.revoke(FULL, calls, outputs, live, 0.0, later_s)) == 5
    assert guard.revoked_total == 10
