"""Whose time-out it was, and what it costs."""

from lowtide import limits
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.verdict import Decision, Finish, InDoubt, TryAgain
from lowtide.core.faults.outcome import Failed, Rejected
from lowtide.core.faults.timeouts import TimeoutBlame
from tests.unit.core.capacity.queue_models import Engine, servers
from tests.unit.core.dispatch.dispatch_cases import OK, add, replica, take_all, try_all

LATE = Failed("timeout", "late")


def test_a_time_out_alone_is_the_requests_own() -> None:
    blame = TimeoutBlame()
    assert blame.is_own(10, 5.0, 0)


def test_a_time_out_in_company_is_not() -> None:
    blame = TimeoutBlame()
    blame.crowded_at_s = 5.0
    assert not blame.is_own(10, 5.0, 0)


def test_who_times_out_again_while_later_calls_of_its_size_are_answered_is_to_blame() -> None:
    blame = TimeoutBlame()
    blame.crowded_at_s = 5.0
    blame.succeeded(100, 6.0)
    assert not blame.is_own(100, 5.0, 0)
    assert blame.is_own(100, 5.0, 1)
    assert not blame.is_own(1_000, 5.0, 1)  # only smaller ones were answered


def test_there_is_an_end_to_time_outs_that_cost_nothing() -> None:
    blame = TimeoutBlame()
    blame.crowded_at_s = 5.0
    assert blame.is_own(10, 5.0, limits.TIMEOUTS_FREE_MAX)


def _two_late(one: Replica) -> tuple[Decision, int]:
    core = Dispatch()
    add(core, 2)
    first, second = take_all(core, one)
    core.settle(first, one, LATE, 600.0, 0.5)
    return core.settle(second, one, LATE, 600.0, 0.5), second.tries


def test_calls_that_waited_behind_our_own_keep_their_tries() -> None:
    decision, tries = _two_late(replica(window=2))
    assert isinstance(decision, TryAgain)
    assert tries == 0


def test_calls_that_are_late_together_shrink_an_engine_with_metrics_once() -> None:
    one = replica(window=64)
    one.timed_out(0.0, 600.0)
    one.timed_out(0.0, 600.0)
    assert one.window == 32
    for _ in range(3_000):
        one.answered(601.0)
    assert one.window == 64


def test_a_call_that_is_too_long_alone_fails_after_its_tries() -> None:
    run = Engine(servers(1), (6.0,), timeout_s=5.0).work(3)
    assert sorted(run.lost) == [1, 2, 3]
    assert run.timeouts == 3 * limits.ATTEMPTS_MAX


def test_a_line_that_never_ends_fails_and_its_neighbours_do_not() -> None:
    run = Engine(lambda _place, _calls: 1.0, (*([1.0] * 30), 10_000.0), timeout_s=60.0).work(120)
    assert sorted(run.lost) == [31, 62, 93]
    assert run.timeouts <= 3 * (limits.ATTEMPTS_MAX + limits.TIMEOUTS_FREE_MAX)


def test_late_calls_open_the_circuit_only_where_nobody_is_answered() -> None:
    one, core = replica(window=8), Dispatch()
    add(core, 16)
    sent = take_all(core, one)
    core.settle(sent[0], one, OK, 1.0, 0.5)
    for request in sent[1:]:
        core.settle(request, one, LATE, 600.0, 0.5)
    assert one.circuit.state == "closed"

    silent, core = replica(window=8), Dispatch()
    add(core, 16)
    for request in take_all(core, silent):
        core.settle(request, silent, LATE, 600.0, 0.5)
    assert silent.circuit.state == "open"


def test_the_last_time_out_is_what_the_line_fails_with() -> None:
    core, one = Dispatch(attempts_max=1), replica(window=1)
    add(core, 1)
    (request,) = take_all(core, one)
    assert core.settle(request, one, LATE, 600.0, 0.5) == InDoubt()
    try_all(core, one, 600.0)  # a token comes in time: the request is too long
    assert take_all(core, one, 600.0) == []  # but after a pause
    assert take_all(core, one, 700.0) == [request]
    decision = core.settle(request, one, LATE, 1300.0, 0.5)
    assert decision == Finish(Rejected("timeout", "late"))
