"""core/dispatch/dispatch.py: which request goes where, and what follows from its outcome."""

from collections.abc import Sequence

import msgspec
import pytest
from dispatch_cases import (
    BUSY,
    OK,
    REFUSED,
    SERVER_ERROR,
    UNREACHED,
    add,
    lease,
    replica,
    take_all,
    try_all,
)

from lowtide import limits
from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.dispatch.verdict import Decision, Finish, InDoubt, TryAgain, backoff_s
from lowtide.core.faults.outcome import Failed, Rejected, Throttled

HALF = 0.5  # a draw


def settle_all(
    core: Dispatch, at: Replica, requests: Sequence[Request], outcome: object, now_s: float = 0.0
) -> list[Decision]:
    return [core.settle(request, at, outcome, now_s, HALF) for request in requests]  # type: ignore[arg-type]


# ---- window and order ----


def test_a_chunk_is_taken_in_order_and_no_more_than_the_window() -> None:
    core, one = Dispatch(), replica(window=3)
    add(core, 10)
    assert [request.line for request in take_all(core, one)] == [1, 2, 3]
    assert (one.in_flight, core.ready) == (3, {"m": 7})


def test_nothing_is_given_to_a_replica_that_does_not_serve_the_model() -> None:
    core = Dispatch()
    add(core, 3, model="other")
    assert core.take(replica(), 0.0) is None


def test_a_replica_stays_with_its_chunk_and_a_fresh_one_goes_to_who_is_free() -> None:
    core = Dispatch()
    a, b = replica("http://a", window=100), replica("http://b", window=100)
    for seq in range(3):
        add(core, 4, seq=seq)
    first, second = core.take(a, 0.0), core.take(b, 0.0)
    assert first is not None and second is not None
    assert (first.run.key.seq, second.run.key.seq) == (0, 1)
    rest_of_a = [core.take(a, 0.0) for _ in range(3)]
    assert {request.run.key.seq for request in rest_of_a if request} == {0}
    third = core.take(a, 0.0)
    assert third is not None and third.run.key.seq == 2


def test_a_replica_without_a_chunk_of_its_own_helps_with_somebody_elses() -> None:
    core = Dispatch()
    a, b = replica("http://a", window=2), replica("http://b", window=100)
    run = add(core, 10)
    take_all(core, a)
    assert [request.line for request in take_all(core, b)] == list(range(3, 11))
    assert run.attached_to == "a"


def test_a_replica_for_many_models_takes_from_each() -> None:
    core, one = Dispatch(), replica(window=100, models=("m", "n"))
    add(core, 2, seq=0)
    add(core, 2, seq=1, model="n")
    assert sorted((r.run.lease.model, r.line) for r in take_all(core, one)) == [
        ("m", 1),
        ("m", 2),
        ("n", 1),
        ("n", 2),
    ]


# ---- final outcomes ----


@pytest.mark.parametrize("outcome", [OK, REFUSED])
def test_an_answer_finishes_its_request_and_frees_its_place(outcome: object) -> None:
    core, one = Dispatch(), replica(window=1)
    run = add(core, 2)
    (request,) = take_all(core, one)
    assert settle_all(core, one, [request], outcome) == [Finish(outcome)]  # type: ignore[arg-type]
    assert (run.unfinished, one.in_flight) == (1, 0)


# ---- back-pressure ----


def test_throttling_costs_no_try_however_often_it_happens() -> None:
    core, one = Dispatch(attempts_max=2), replica(window=1)
    add(core, 1)
    now_s = 0.0
    for _ in range(50):
        (request,) = take_all(core, one, now_s)
        (decision,) = settle_all(core, one, [request], BUSY, now_s)
        assert isinstance(decision, TryAgain)
        assert one.resumes_at_s is not None
        now_s = max(decision.at_s, one.resumes_at_s)
    (request,) = take_all(core, one, now_s)
    assert request.tries == 0


def test_one_refusal_for_lack_of_room_keeps_the_others_back_as_well() -> None:
    core, one = Dispatch(), replica(window=8)
    add(core, 100)
    first = take_all(core, one)
    settle_all(core, one, first, Throttled("no room", 3.0))
    assert take_all(core, one, 2.9) == []
    assert core.next_wake_s([one], 0.0) == 3.0
    assert len(take_all(core, one, 3.0)) == int(one.window)


def test_a_retry_after_is_waited_for_and_bounded() -> None:
    core, one = Dispatch(), replica(window=2)
    add(core, 2)
    (soon, late) = take_all(core, one)
    (decision,) = settle_all(core, one, [soon], Throttled("no room", 7.0), 100.0)
    assert decision == TryAgain(107.0)
    (decision,) = settle_all(core, one, [late], Throttled("no room", 1e9), 100.0)
    assert decision == TryAgain(100.0 + limits.BACKOFF_CAP_S)


# ---- retries ----


def test_a_failing_request_ends_after_its_tries_with_what_the_engine_said() -> None:
    core, one = Dispatch(attempts_max=3), replica(window=1)
    run = add(core, 1)
    decisions: list[Decision] = []
    now_s = 0.0
    while run.unfinished:
        now_s += 100.0
        decisions += settle_all(core, one, take_all(core, one, now_s), SERVER_ERROR, now_s)
        try_all(core, one, now_s)
    assert [type(decision) for decision in decisions] == [InDoubt, InDoubt, Finish]
    assert decisions[-1] == Finish(Rejected("engine_error", "it answered 500", 500))


def test_a_retry_waits_its_time_and_goes_behind_what_has_not_failed() -> None:
    core, one = Dispatch(), replica(window=1)
    add(core, 4)
    (request,) = take_all(core, one)
    assert settle_all(core, one, [request], SERVER_ERROR) == [InDoubt()]
    (other,) = take_all(core, one)
    settle_all(core, one, [other], OK, 1.0)  # so the engine is well, and the failure its own
    (third,) = take_all(core, one, 1.0)
    assert (third.line, request.tries) == (3, 1)
    settle_all(core, one, [third], OK, 50.0)
    (fourth,) = take_all(core, one, 50.0)
    assert fourth.line == 4
    settle_all(core, one, [fourth], OK, 50.0)
    assert take_all(core, one, 50.0) == [request]


def test_back_off_is_drawn_between_nothing_and_a_bound_that_doubles_up_to_the_cap() -> None:
    assert backoff_s(0, 0.99) == 0.0
    assert [backoff_s(step, HALF) for step in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert backoff_s(3, 0.0) == 0.0
    assert backoff_s(1000, 1.0) == limits.BACKOFF_CAP_S


def test_beyond_the_retry_budget_retries_are_spread_over_a_longer_time() -> None:
    core, one = Dispatch(attempts_max=1000), replica(window=1)
    add(core, 1)
    waits, now_s = [], 0.0
    for _ in range(limits.RETRY_BUDGET_BURST + 1):
        (request,) = take_all(core, one, now_s)
        settle_all(core, one, [request], SERVER_ERROR, now_s)
        request.tries = 0
        try_all(core, one, now_s)
        assert take_all(core, one, now_s) == []
        wake_s = core.next_wake_s([one], now_s)
        assert wake_s is not None
        waits.append(wake_s - now_s)
        now_s = wake_s
    assert waits[:-1] == pytest.approx([HALF] * limits.RETRY_BUDGET_BURST)
    assert waits[-1] == pytest.approx(backoff_s(limits.RETRY_SPREAD_STEPS, HALF))


def test_a_request_that_never_reached_the_engine_waits_for_nothing_but_the_circuit() -> None:
    core, one = Dispatch(attempts_max=1), replica(window=8)
    run = add(core, 8)
    requests = take_all(core, one)
    decisions = settle_all(core, one, requests, UNREACHED, 5.0)
    assert decisions == [TryAgain(5.0)] * 8
    assert one.circuit.state == "open"
    assert take_all(core, one, 5.0) == []
    assert core.next_wake_s([one], 5.0) == 5.0 + limits.CIRCUIT_COOLDOWN_S
    (probe,) = take_all(core, one, 5.0 + limits.CIRCUIT_COOLDOWN_S)
    settle_all(core, one, [probe], OK, 6.0)
    assert len(take_all(core, one, 6.0)) == 7
    assert run.unfinished == 7


# ---- when to ask again ----


def test_nobody_is_to_be_woken_for_what_time_will_not_change() -> None:
    core = Dispatch()
    one, down = replica(window=1), replica("http://down", models=("n",))
    add(core, 2)
    take_all(core, one)
    for _ in range(limits.CIRCUIT_FAILURES):
        down.circuit.failed(0.0, "refused")
    assert core.next_wake_s([one, down], 0.0) == limits.CIRCUIT_COOLDOWN_S
    assert take_all(core, down, 10.0) == []
    assert core.next_wake_s([one, down], 10.0) is None


def test_without_chunks_there_is_nothing_to_wake_for() -> None:
    core, down = Dispatch(), replica()
    for _ in range(limits.CIRCUIT_FAILURES):
        down.circuit.failed(0.0, "refused")
    assert core.next_wake_s([down], 0.0) is None


# ---- letting go ----


def test_a_call_taken_back_blames_nobody_and_frees_its_place() -> None:
    core, one = Dispatch(), replica(window=1)
    run = add(core, 2)
    (request,) = take_all(core, one)
    core.remove(run.key)
    core.abandon(request, one, 0.0)
    assert (one.in_flight, one.circuit.state, core.ready["m"]) == (0, "closed", 0)


def test_a_probe_taken_back_does_not_close_the_way_for_good() -> None:
    core, one = Dispatch(), replica(window=1)
    run = add(core, 1)
    for _ in range(limits.CIRCUIT_FAILURES):
        one.circuit.failed(0.0, "refused")
    (probe,) = take_all(core, one, 10.0)
    core.remove(run.key)
    core.abandon(probe, one, 0.0)
    add(core, 1, seq=1)
    assert len(take_all(core, one, 10.0)) == 1


def test_a_removed_chunk_leaves_no_trace_and_its_delayed_retries_do_not_come_back() -> None:
    core, one = Dispatch(), replica(window=2)
    run = add(core, 5)
    (delayed, flying) = take_all(core, one)
    settle_all(core, one, [delayed], BUSY)
    assert core.remove(run.key) is run
    assert core.remove(run.key) is None
    assert (core.ready["m"], core.input_bytes, core.runs) == (0, 0, {})
    settle_all(core, one, [flying], SERVER_ERROR)
    assert take_all(core, one, 1000.0) == []
    assert core.ready["m"] == 0
    assert core.next_wake_s([one], 1000.0) is None


def test_a_chunk_leased_anew_replaces_the_run_whose_lease_was_lost_unnoticed() -> None:
    core, one = Dispatch(), replica(window=2)
    old = add(core, 5)
    flying = take_all(core, one)
    new = core.add(lease(token=2), [(4, 5, b"line 5")])
    assert core.runs == {ChunkKey("b", 0): new}
    assert (core.ready["m"], core.input_bytes) == (1, new.input_bytes)
    settle_all(core, one, flying, OK)
    (request,) = take_all(core, one)
    assert request.run is new
    assert old.pending == new.pending
    core.remove(new.key)
    assert core.input_bytes == 0


def test_chunks_of_stopped_batches_are_found() -> None:
    core = Dispatch()
    runs = [add(core, 1, batch, seq) for batch, seq in (("a", 0), ("b", 0), ("a", 1))]
    assert core.of_batches(frozenset({"a"})) == [runs[0], runs[2]]


def test_a_wish_for_a_pause_is_bounded_after_a_failure_too() -> None:
    core, one = Dispatch(), replica(window=1)
    add(core, 1)
    (request,) = take_all(core, one)
    outcome: Failed = msgspec.structs.replace(SERVER_ERROR, retry_after_s=1e9)
    settle_all(core, one, [request], outcome, 1.0)
    try_all(core, one, 1.0)
    assert take_all(core, one, 1.0) == []
    assert core.next_wake_s([one], 1.0) == 1.0 + limits.BACKOFF_CAP_S


def test_a_replica_that_is_forgotten_leaves_its_chunks_to_whoever_comes() -> None:
    core = Dispatch()
    a, b = replica("http://a", window=1), replica("http://b", window=1)
    run = add(core, 4)
    assert core.take(a, 0.0) is not None
    core.forget("a")
    assert run.attached_to is None
    assert core.take(b, 0.0) is not None
    assert run.attached_to == "b"
