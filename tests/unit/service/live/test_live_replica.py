"""A live call beside batch work: what it counts, and what it tells the shared circuit."""

from contextlib import ExitStack
from typing import cast

import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.core.bodies.body_rules import BodyRules
from lowtide.core.dispatch.replica import Replica
from lowtide.core.faults.outcome import Failed, Interrupted, Rejected
from lowtide.core.faults.scope import Scope
from lowtide.core.history.replica_history import first_byte_bucket
from lowtide.ports.engine import StreamingEngine
from lowtide.service.live.live_replica import LiveCall, LiveReplica


@pytest.fixture
def live() -> LiveReplica:
    replica = Replica("http://e/v1", frozenset({"m"}), 4)
    return LiveReplica(replica, cast(StreamingEngine, None), {}, BodyRules(), 1.0)


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


def scope_of(live: LiveReplica) -> Scope:
    return live.replica.scope(("m", "/v1/chat/completions"))


def fail(live: LiveReplica, clock: SkippingClock, times: int = limits.CIRCUIT_FAILURES) -> None:
    for _ in range(times):
        with LiveCall(live, clock, scope_of(live)) as call:
            call.came_to(Interrupted("boom"))


def test_a_call_is_in_flight_while_it_lasts_and_takes_no_place_in_the_window(
    live: LiveReplica, clock: SkippingClock
) -> None:
    with LiveCall(live, clock, scope_of(live)) as call:
        assert (live.in_flight, live.replica.in_flight) == (1, 0)
        assert live.load == 1 / 4
        call.first_byte()
    assert live.in_flight == 0


def test_batch_calls_in_flight_are_load_too(live: LiveReplica) -> None:
    live.replica.started()
    assert live.load == 1 / 4


def test_live_failures_open_the_circuit_for_batch_work_and_leave_its_window_alone(
    live: LiveReplica, clock: SkippingClock
) -> None:
    fail(live, clock)
    assert live.replica.circuit.state == "open"
    assert live.replica.circuit.because == "boom"
    assert not live.replica.has_room(clock.monotonic())
    assert live.replica.window == 4


def test_a_live_call_may_be_the_probe_that_closes_the_circuit(
    live: LiveReplica, clock: SkippingClock
) -> None:
    fail(live, clock)
    with LiveCall(live, clock, scope_of(live)) as call:
        assert not live.replica.circuit.admits(clock.monotonic() + 60)  # one probe at a time
        call.first_byte()
    assert live.replica.circuit.admits(clock.monotonic())


def test_a_probe_whose_client_left_says_nothing_of_the_engine(
    live: LiveReplica, clock: SkippingClock
) -> None:
    fail(live, clock)
    with LiveCall(live, clock, scope_of(live)):
        pass
    assert live.replica.circuit.state == "open"  # and the next call is the probe


def test_errors_of_an_engine_that_answers_leave_its_circuit_closed(
    live: LiveReplica, clock: SkippingClock
) -> None:
    for outcome in (Failed("server_error", "boom", 500), Rejected("request_rejected", "no", 400)):
        for _ in range(50):
            with LiveCall(live, clock, scope_of(live)) as call:
                call.came_to(outcome)
    assert live.replica.circuit.state == "closed"
    assert scope_of(live).takes_live(clock.monotonic())


def test_a_replica_that_refuses_what_another_answers_is_held_until_its_next_trial(
    live: LiveReplica, clock: SkippingClock
) -> None:
    with LiveCall(live, clock, scope_of(live)) as call:
        refusal = Failed("credentials", "Unauthorized", 401)
        call.came_to(refusal)
        call.refuted(refusal)
    now_s = clock.monotonic()
    assert not scope_of(live).takes_live(now_s)
    assert scope_of(live).takes_live(now_s + limits.TRIAL_PAUSE_S_MAX)
    with LiveCall(live, clock, scope_of(live)) as call:
        call.first_byte()
    assert scope_of(live).held is None


def test_an_organization_leaves_places_for_others_and_gets_its_own_back(
    clock: SkippingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LIVE_IN_FLIGHT_MAX", 6)
    replica = Replica("http://e/v1", frozenset({"m"}), 4)
    live = LiveReplica(replica, cast(StreamingEngine, None), {}, BodyRules(), 1.0)
    with ExitStack() as calls:
        for _ in range(3):
            assert live.has_place("org_a")
            calls.enter_context(LiveCall(live, clock, scope_of(live), organization_id="org_a"))
        assert not live.has_place("org_a")
        assert live.has_place("org_b")
        assert not live.places.is_full
    assert (live.in_flight, live.has_place("org_a")) == (0, True)


# ---- what the control loop hears ----


def test_a_stream_that_waits_too_long_for_its_first_byte_is_in_need(
    live: LiveReplica, clock: SkippingClock
) -> None:
    with (
        LiveCall(live, clock, scope_of(live), tokens=400, streams=True) as call,
        LiveCall(live, clock, scope_of(live), tokens=400),
    ):
        assert live.live_load(clock.monotonic(), 0.25).waiting == 0
        late_s = clock.monotonic() + 0.3
        seen = live.live_load(late_s, 0.25)
        assert (seen.in_flight, seen.waiting) == (2, 1), "of the other one nobody can tell"
        call.first_byte()
        assert live.live_load(late_s, 0.25).waiting == 0
    assert live.live_load(late_s, 0.25).in_flight == 0


def test_one_that_waited_in_vain_is_in_need_no_more(
    live: LiveReplica, clock: SkippingClock
) -> None:
    with LiveCall(live, clock, scope_of(live), streams=True):
        pass
    assert live.live_load(clock.monotonic() + 9.0, 0.25) == live.live_load(clock.monotonic(), 0.25)


def test_each_call_is_announced_before_it_counts(live: LiveReplica, clock: SkippingClock) -> None:
    heard: list[tuple[int, int]] = []
    live.when_asked(lambda tokens, _: heard.append((tokens, live.in_flight)))
    with LiveCall(live, clock, scope_of(live), input_tokens=70, tokens=300):
        pass
    assert heard == [(70, 0)]


def test_what_a_call_holds_is_learnt_from_those_that_came(
    live: LiveReplica, clock: SkippingClock
) -> None:
    for _ in range(200):
        with LiveCall(live, clock, scope_of(live), tokens=50) as call:
            call.first_byte()
    assert live.live_load(clock.monotonic(), 0.25).tokens_each == pytest.approx(50, rel=0.01)


def test_a_stream_that_begins_counts_by_its_time_to_the_first_byte(
    live: LiveReplica, clock: SkippingClock
) -> None:
    for waited_s in (0.2, 0.2, 3.0):
        with LiveCall(live, clock, scope_of(live), streams=True) as call:
            clock.advance(waited_s)
            call.first_byte()
            clock.advance(60)
    with LiveCall(live, clock, scope_of(live), streams=True):
        pass  # it never began
    assert live.first_bytes == {first_byte_bucket(0.2): 2, first_byte_bucket(3.0): 1}
