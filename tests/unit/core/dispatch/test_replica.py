"""core/dispatch/replica.py: window, circuit, pause and budget of one engine URL."""

import pytest
from dispatch_cases import replica

from lowtide import limits
from lowtide.core.dispatch.replica import Circuit, RetryBudget


def broken(now_s: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(limits.CIRCUIT_FAILURES):
        circuit.failed(now_s, "refused")
    assert circuit.state == "open"
    return circuit


# ---- circuit ----


def test_the_circuit_opens_at_the_last_of_several_failures_in_a_row() -> None:
    circuit = Circuit()
    for _ in range(limits.CIRCUIT_FAILURES - 1):
        circuit.failed(0.0, "refused")
    assert circuit.admits(0.0)
    circuit.failed(0.0, "refused")
    assert not circuit.admits(0.0)
    assert circuit.because == "refused"


def test_an_answer_between_them_starts_the_count_again() -> None:
    circuit = Circuit()
    for _ in range(limits.CIRCUIT_FAILURES - 1):
        circuit.failed(0.0, "refused")
    circuit.succeeded(0.0)
    circuit.failed(0.0, "refused")
    assert circuit.state == "closed"


def test_the_circuit_opens_when_most_calls_of_the_span_fail_though_never_in_a_row() -> None:
    circuit = Circuit()
    for n in range(limits.CIRCUIT_RATE_SAMPLES_MIN + 10):
        circuit.succeeded(n / 10)
        circuit.failed(n / 10, "500")
        circuit.failed(n / 10, "500")
        if circuit.state == "open":
            return
    pytest.fail("two of three calls failed and the circuit stayed closed")


def test_failures_older_than_the_span_are_forgotten() -> None:
    circuit = Circuit()
    late = 2 * limits.CIRCUIT_RATE_SPAN_S
    for n in range(limits.CIRCUIT_RATE_SAMPLES_MIN):
        circuit.failed(0.0, "500")
        circuit.succeeded(0.0)
        if n == 5:
            break
    for _ in range(limits.CIRCUIT_RATE_SAMPLES_MIN):
        circuit.succeeded(late)
    circuit.failed(late, "500")
    assert circuit.state == "closed"


def test_an_open_circuit_admits_one_probe_after_its_cool_down() -> None:
    circuit = broken(10.0)
    assert circuit.retry_at_s == 10.0 + limits.CIRCUIT_COOLDOWN_S
    assert not circuit.admits(circuit.retry_at_s - 0.01)
    assert circuit.admits(circuit.retry_at_s)
    circuit.sent()
    assert circuit.state == "half_open"
    assert not circuit.admits(1000.0)
    assert circuit.retry_at_s is None


def test_a_good_probe_closes_the_circuit() -> None:
    circuit = broken()
    circuit.sent()
    circuit.succeeded(1.0)
    assert circuit.admits(1.0)


def test_failed_probes_double_the_cool_down_up_to_its_bound() -> None:
    circuit, now_s, waits = broken(), 0.0, []
    for _ in range(6):
        assert circuit.retry_at_s is not None
        waits.append(circuit.retry_at_s - now_s)
        now_s = circuit.retry_at_s
        circuit.sent()
        circuit.failed(now_s, "refused")
    assert waits == sorted(waits)
    assert waits[:3] == [0.5, 1.0, 2.0]
    assert waits[-1] == limits.CIRCUIT_COOLDOWN_S_MAX


def test_a_probe_that_we_took_back_lets_the_next_call_be_the_probe() -> None:
    circuit = broken()
    circuit.sent()
    circuit.abandoned()
    assert circuit.admits(limits.CIRCUIT_COOLDOWN_S)


def test_calls_that_were_in_flight_when_it_opened_do_not_lengthen_the_wait() -> None:
    circuit = broken(0.0)
    circuit.failed(0.4, "reset")
    assert circuit.retry_at_s == limits.CIRCUIT_COOLDOWN_S


def test_what_the_circuit_remembers_is_bounded_by_its_span() -> None:
    circuit = Circuit()
    for n in range(10_000):
        circuit.failed(n, "500")
        circuit.succeeded(n)
    assert len(circuit._recent) <= 2 * (limits.CIRCUIT_RATE_SPAN_S + 1)


# ---- window ----


def test_a_replica_has_room_until_its_window_is_full() -> None:
    one = replica(window=2)
    one.started()
    assert one.has_room(0.0)
    one.started()
    assert not one.has_room(0.0)
    one.ended()
    assert one.has_room(0.0)


def test_back_pressure_shrinks_the_window_at_most_once_a_span() -> None:
    one = replica(window=100)
    for _ in range(50):
        one.throttled(5.0)
    assert one.window == pytest.approx(100 * limits.THROTTLE_SHRINK)
    one.throttled(5.0 + limits.THROTTLE_SPAN_S)
    assert one.window == pytest.approx(100 * limits.THROTTLE_SHRINK**2)


def test_the_window_never_falls_below_one_and_grows_back_to_its_bound() -> None:
    one = replica(window=8)
    for second in range(100):
        one.throttled(float(second))
    assert one.window == 1.0
    for _ in range(200):
        one.answered(100.0)
    assert one.window == 8.0


def test_after_back_pressure_nothing_is_sent_until_the_engine_said() -> None:
    one = replica()
    one.throttled(10.0, retry_after_s=7.0)
    assert not one.has_room(16.9)
    assert one.resumes_at_s == 17.0
    assert one.has_room(17.0)


def test_an_engine_that_says_no_time_is_given_longer_and_longer_pauses() -> None:
    one, now_s, pauses = replica(), 0.0, []
    for _ in range(12):
        one.throttled(now_s)
        assert one.resumes_at_s is not None
        pauses.append(one.resumes_at_s - now_s)
        now_s = one.resumes_at_s
    assert pauses[0] == pytest.approx(limits.THROTTLE_PAUSE_S)
    assert pauses[1] == pytest.approx(2 * limits.THROTTLE_PAUSE_S)
    assert pauses[-1] == pytest.approx(limits.THROTTLE_PAUSE_S_MAX)


def test_a_window_of_refusals_at_once_is_one_reason_to_pause() -> None:
    one = replica(window=64)
    for _ in range(64):
        one.throttled(0.0)
    assert one.resumes_at_s == limits.THROTTLE_PAUSE_S


def test_an_answer_makes_the_next_pause_short_again() -> None:
    one = replica()
    for now_s in (0.0, 10.0, 20.0):
        one.throttled(now_s)
    one.answered(30.0)
    one.throttled(40.0)
    assert one.resumes_at_s == pytest.approx(40.0 + limits.THROTTLE_PAUSE_S)


def test_a_pause_is_never_longer_than_the_cap_whatever_the_engine_asks() -> None:
    one = replica()
    one.throttled(0.0, retry_after_s=1e9)
    assert one.resumes_at_s == limits.BACKOFF_CAP_S


def test_an_answer_from_before_the_pause_does_not_end_it() -> None:
    one = replica()
    one.throttled(0.0, retry_after_s=5.0)
    one.answered(1.0)
    assert not one.has_room(4.0)


# ---- budget ----


def test_retries_are_a_burst_and_then_a_tenth_of_the_answers() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(100)) == limits.RETRY_BUDGET_BURST
    for _ in range(50):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) in (4, 5)  # floats: 50 times a tenth


def test_the_budget_does_not_grow_beyond_its_burst() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == limits.RETRY_BUDGET_BURST
