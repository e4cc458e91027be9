"""A live call beside batch work: what it counts, and what it tells the shared circuit."""

from typing import cast

import pytest
from hand_clock import HandClock

from lowtide import limits
from lowtide.core.replica import Replica
from lowtide.ports.engine import StreamingEngine
from lowtide.service.live_replica import LiveCall, LiveReplica


@pytest.fixture
def live() -> LiveReplica:
    replica = Replica("http://e/v1", frozenset({"m"}), 4)
    return LiveReplica(replica, cast(StreamingEngine, None), {}, frozenset(), 1.0)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def fail(live: LiveReplica, clock: HandClock, times: int = limits.CIRCUIT_FAILURES) -> None:
    for _ in range(times):
        with LiveCall(live, clock) as call:
            call.failed("boom")


def test_a_call_is_in_flight_while_it_lasts_and_takes_no_place_in_the_window(
    live: LiveReplica, clock: HandClock
) -> None:
    with LiveCall(live, clock) as call:
        assert (live.in_flight, live.replica.in_flight) == (1, 0)
        assert live.load == 1 / 4
        call.succeeded()
    assert live.in_flight == 0


def test_batch_calls_in_flight_are_load_too(live: LiveReplica) -> None:
    live.replica.started(suspect=False)
    assert live.load == 1 / 4


def test_live_failures_open_the_circuit_for_batch_work_and_leave_its_window_alone(
    live: LiveReplica, clock: HandClock
) -> None:
    fail(live, clock)
    assert live.replica.circuit.state == "open"
    assert live.replica.circuit.opened_because == "boom"
    assert not live.replica.has_room(clock.monotonic())
    assert live.replica.window == 4


def test_a_live_call_may_be_the_probe_that_closes_the_circuit(
    live: LiveReplica, clock: HandClock
) -> None:
    fail(live, clock)
    with LiveCall(live, clock) as call:
        assert not live.replica.circuit.admits(clock.monotonic() + 60)  # one probe at a time
        call.succeeded()
    assert live.replica.circuit.admits(clock.monotonic())


def test_a_probe_whose_client_left_says_nothing_of_the_engine(
    live: LiveReplica, clock: HandClock
) -> None:
    fail(live, clock)
    with LiveCall(live, clock):
        pass
    assert live.replica.circuit.state == "open"  # and the next call is the probe


# ---- what the control loop hears ----


def test_a_stream_that_waits_too_long_for_its_first_byte_is_in_need(
    live: LiveReplica, clock: HandClock
) -> None:
    with (
        LiveCall(live, clock, tokens=400, streams=True) as call,
        LiveCall(live, clock, tokens=400),
    ):
        assert live.seen(clock.monotonic(), 0.25).waiting == 0
        late_s = clock.monotonic() + 0.3
        seen = live.seen(late_s, 0.25)
        assert (seen.in_flight, seen.waiting) == (2, 1), "of the other one nobody can tell"
        call.succeeded()
        assert live.seen(late_s, 0.25).waiting == 0
    assert live.seen(late_s, 0.25).in_flight == 0


def test_one_that_waited_in_vain_is_in_need_no_more(live: LiveReplica, clock: HandClock) -> None:
    with LiveCall(live, clock, streams=True):
        pass
    assert live.seen(clock.monotonic() + 9.0, 0.25) == live.seen(clock.monotonic(), 0.25)


def test_each_call_is_announced_before_it_counts(live: LiveReplica, clock: HandClock) -> None:
    heard: list[tuple[int, int]] = []
    live.on_asked = lambda tokens, _: heard.append((tokens, live.in_flight))
    with LiveCall(live, clock, input_tokens=70, tokens=300):
        pass
    assert heard == [(70, 0)]


def test_what_a_call_holds_is_learnt_from_those_that_came(
    live: LiveReplica, clock: HandClock
) -> None:
    for _ in range(200):
        with LiveCall(live, clock, tokens=50) as call:
            call.succeeded()
    assert live.seen(clock.monotonic(), 0.25).tokens_each == pytest.approx(50, rel=0.01)
