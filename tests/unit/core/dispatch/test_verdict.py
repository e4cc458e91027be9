"""core/dispatch/verdict.py in core/dispatch/dispatch.py, in virtual time: whose fault it is, and
what that costs."""

from collections.abc import Callable

import pytest
from dispatch_cases import (
    DIED,
    FORBIDDEN,
    OK,
    SERVER_ERROR,
    UNREACHED,
    add,
    replica,
    take_all,
    try_all,
)
from virtual_engine import TRIAL_S, Engine, Play, well

from lowtide import limits
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.dispatch.verdict import Finish, InDoubt
from lowtide.core.faults.outcome import Failed, Outcome, Rejected, Throttled

COMMIT_S = limits.COMMIT_INTERVAL_S
GATEWAY = Failed("gateway", "502 Bad Gateway", 502)
LOADING = Throttled("Loading model")


def batches(core: Dispatch, **sizes: int) -> None:
    """Batches of that many lines, in chunks, their chunks by turns as the store deals them."""
    left, seq = dict(sizes), 0
    while any(left.values()):
        for name, count in list(left.items()):
            size = min(count, limits.CHUNK_REQUESTS_MAX)
            if size:
                run = add(core, size, name, seq)
                for request in run.pending:
                    request.line += 1_000 * seq
                left[name] = count - size
        seq += 1


def poisoned(seconds: float, names: tuple[str, ...] = ("bad",)) -> Engine:
    """A healthy engine that always answers the lines of these batches with 500."""

    def engine(request: Request | None, _now_s: float) -> tuple[float, Outcome]:
        is_bad = request is not None and request.run.key.batch_id in names
        return seconds, SERVER_ERROR if is_bad else OK

    return engine


def alone_s(count: int, window: int) -> float:
    core, one = Dispatch(), replica(window=window)
    batches(core, good=count)
    return Play(core, {one: well(0.02)}).run().last_of("good")


# ---- the request's fault ----


@pytest.mark.parametrize(("bad", "good"), [(10, 300), (300, 5_000)])
@pytest.mark.parametrize("window", [1, 4, 64])
@pytest.mark.parametrize("order", ["bad first", "good first"])
def test_lines_that_always_fail_cost_the_others_little(
    bad: int, good: int, window: int, order: str
) -> None:
    core, one = Dispatch(), replica(window=window)
    sizes = {"bad": bad, "good": good}
    batches(core, **(sizes if order == "bad first" else dict(reversed(sizes.items()))))
    play = Play(core, {one: poisoned(0.02)}).run()
    assert play.last_of("good") < 2 * alone_s(good, window) + 2 * COMMIT_S
    assert {name for name, _ in play.failed()} == {"bad"}
    assert len(play.failed()) == bad
    assert one.circuit.state == "closed"


@pytest.mark.parametrize("count", [1, 30, 300])
def test_a_batch_of_nothing_but_such_lines_ends_in_minutes(count: int) -> None:
    core, one = Dispatch(), replica(window=16)
    batches(core, bad=count)
    play = Play(core, {one: poisoned(0.02)}).run()
    assert len(play.failed()) == count
    assert play.now_s < 5 * 60
    assert play.calls == count * limits.ATTEMPTS_MAX
    assert play.trials <= play.calls


def test_such_lines_end_with_the_engines_words() -> None:
    core, one = Dispatch(), replica()
    batches(core, bad=1, good=20)
    play = Play(core, {one: poisoned(0.02)}).run()
    assert play.ended["bad", 1] == Rejected("engine_error", "it answered 500", 500)


def test_one_line_that_is_forbidden_while_others_are_not_ends_alone() -> None:
    core, one = Dispatch(), replica()
    batches(core, bad=1, good=20)

    def engine(request: Request | None, _now_s: float) -> tuple[float, Outcome]:
        is_bad = request is not None and request.run.key.batch_id == "bad"
        return 0.02, FORBIDDEN if is_bad else OK

    play = Play(core, {one: engine}).run()
    assert play.ended["bad", 1] == Rejected("request_rejected", "not you", 403)
    assert play.failed() == {("bad", 1)}
    assert play.now_s < 1.0
    assert (play.calls, play.trials) == (20 + limits.REFUSALS_MAX, 0), "the others were the judges"


def test_without_others_one_token_of_our_own_is_the_judge() -> None:
    core, one = Dispatch(), replica()
    batches(core, bad=1)

    def engine(request: Request | None, _now_s: float) -> tuple[float, Outcome]:
        return 0.02, OK if request is None else FORBIDDEN

    play = Play(core, {one: engine}).run()
    assert play.failed() == {("bad", 1)}
    assert (play.calls, play.trials) == (2, 1)
    assert play.now_s < 0.1


def test_live_calls_pass_beside_lines_that_always_fail() -> None:
    core, one = Dispatch(), replica(window=4)
    batches(core, bad=50)
    play = Play(core, {one: poisoned(0.02)})
    scope = one.scope(("m", "/v1/chat/completions"))
    seen: list[bool] = []
    for step in range(200):
        play.at(
            0.01 * step,
            lambda: seen.append(one.circuit.admits(play.now_s) and scope.takes_live(play.now_s)),
        )
    play.run()
    assert seen == [True] * 200


# ---- the set-up's fault ----


@pytest.mark.parametrize(
    "kind", ["credentials", "payment", "forbidden", "redirect", "path", "model", "quota", "page"]
)
def test_a_set_up_that_breaks_under_way_burns_no_line_and_goes_on_when_mended(kind: str) -> None:
    core, one = Dispatch(), replica(window=16)
    batches(core, good=300)
    broken = Failed(kind, "as it is set up", 401)  # type: ignore[arg-type]

    def engine(_request: Request | None, now_s: float) -> tuple[float, Outcome]:
        return 0.02, broken if 0.1 <= now_s < 1500.0 else OK

    play = Play(core, {one: engine})
    calls: list[int] = []
    play.at(60.0, lambda: calls.append(play.calls))
    play.at(1499.0, lambda: calls.append(play.calls))
    play.run()
    assert play.failed() == set()
    assert len(play.ended) == 300
    assert calls[0] == calls[1], "while it is held, no line is sent"
    assert play.trials < 80, "in 25 minutes"
    assert play.now_s < 1500.0 + limits.TRIAL_PAUSE_S_MAX + 2.0


def test_a_key_that_is_changed_while_long_calls_run_burns_nothing_either() -> None:
    """Older calls still succeed, but they were sent with the key that was right then."""
    core, one = Dispatch(), replica(window=16)
    batches(core, good=100)
    nth = iter(range(10_000))

    def engine(_request: Request | None, now_s: float) -> tuple[float, Outcome]:
        if 1.0 <= now_s < 60.0:
            return 0.01, Failed("credentials", "Unauthorized", 401)
        return 1.0 + 0.5 * (next(nth) % 16), OK

    play = Play(core, {one: engine}).run()
    assert play.failed() == set()


def test_a_healthy_neighbour_takes_all_the_work_at_once() -> None:
    core = Dispatch()
    wrong, right = replica("http://wrong", window=16), replica("http://right", window=16)
    batches(core, good=1000)

    def refuses(_request: Request | None, _now_s: float) -> tuple[float, Outcome]:
        return 0.001, Failed("credentials", "Unauthorized", 401)

    play = Play(core, {wrong: refuses, right: well(0.02)}).run()
    assert play.failed() == set()
    assert play.now_s < 1.1 * 1000 * 0.02 / 16 + 1.0
    assert play.calls <= 1000 + 2 * 16, "and little was asked of the other"


def test_a_scope_that_is_held_leaves_the_replicas_other_models_alone() -> None:
    core, one = Dispatch(), replica(models=("m", "n"))
    add(core, 40, "lacks", 0, model="m")
    add(core, 40, "has", 0, model="n")

    def engine(request: Request | None, _now_s: float) -> tuple[float, Outcome]:
        lacks = request is None or request.run.lease.model == "m"
        return 0.02, Failed("model", "no such model", 404) if lacks else OK

    play = Play(core, {one: engine}).run(60.0)
    assert {name for name, _ in play.ended} == {"has"}
    assert play.failed() == set()
    assert one.scope(("m", "/v1/chat/completions")).held == "model"


# ---- the replica's health ----


@pytest.mark.parametrize(
    "away",
    [
        GATEWAY,
        Failed("proxy_timeout", "504 Gateway Time-out", 504),
        Throttled("503 Service Temporarily Unavailable"),
        UNREACHED,
        DIED,
        Failed("timeout", "no complete answer"),
        SERVER_ERROR,
        Failed("bad_answer", "no choices", 200),
    ],
    ids=["502", "504", "503", "refused", "cut", "timeout", "500", "empty"],
)
def test_nothing_is_lost_while_an_engine_is_away_for_25_minutes(away: Outcome) -> None:
    core, one = Dispatch(), replica(window=16)
    batches(core, good=300)

    def engine(_request: Request | None, now_s: float) -> tuple[float, Outcome]:
        return 0.05, away if 0.2 <= now_s < 1500.0 else OK

    play = Play(core, {one: engine}).run()
    assert play.failed() == set()
    assert len(play.ended) == 300
    tries = [request.tries for run in core.runs.values() for request in run.pending]
    assert sum(tries) == 0
    assert play.now_s < 1500.0 + limits.BACKOFF_CAP_S + 2.0


def test_a_line_that_draws_502_while_others_succeed_ends_after_its_tries() -> None:
    core, one = Dispatch(), replica(window=8)
    batches(core, bad=1, good=2_000)

    def engine(request: Request | None, _now_s: float) -> tuple[float, Outcome]:
        is_bad = request is not None and request.run.key.batch_id == "bad"
        return 0.05, GATEWAY if is_bad else OK

    play = Play(core, {one: engine}).run()
    assert play.failed() == {("bad", 1)}
    assert play.ended["bad", 1] == Rejected("engine_error", "502 Bad Gateway", 502)
    assert play.last_of("good") < 2 * 2_000 * 0.05 / 8 + 2 * COMMIT_S


# ---- restarts and crashes ----


def restarting(down: tuple[float, float], seconds: float, after: Outcome = UNREACHED) -> Engine:
    """An engine that is away in between."""

    def engine(request: Request | None, now_s: float) -> tuple[float, Outcome]:
        answered = (seconds if request is not None else TRIAL_S, OK)
        return (0.001, after) if down[0] <= now_s < down[1] else answered

    return engine


@pytest.mark.parametrize("after", [UNREACHED, GATEWAY, LOADING], ids=["refused", "502", "loading"])
@pytest.mark.parametrize("cut", [DIED, GATEWAY], ids=["cut", "502"])
def test_64_calls_that_a_restart_cut_are_done_soon_after_it(cut: Outcome, after: Outcome) -> None:
    core, one = Dispatch(), replica(window=64)
    add(core, 64)
    play = Play(core, {one: restarting((4.0, 30.0), 8.0, after)})
    play.at(4.0, lambda: play.cut(one, cut))
    play.run()
    assert play.failed() == set()
    assert play.now_s < 30.0 + 20.0


def test_an_engine_that_is_back_before_anybody_looks_is_searched_by_halves() -> None:
    """No refused connection tells a restart from a death: 32 of them at a time, two rounds."""
    core, one = Dispatch(), replica(window=64)
    add(core, 64)
    play = Play(core, {one: well(8.0)})
    play.at(4.0, lambda: play.cut(one))
    play.run()
    assert play.peak_suspects == 32
    assert play.failed() == set()
    assert play.now_s < 4.0 + 20.0


def test_those_cut_twice_are_suspects_whatever_is_refused_and_cleared_when_they_succeed() -> None:
    core, one = Dispatch(), replica(window=64)
    add(core, 64)
    play = Play(core, {one: restarting((4.0, 6.0), 8.0)})
    play.at(4.0, lambda: play.cut(one))
    play.at(10.0, lambda: play.cut(one))
    play.run()
    assert 1 < play.peak_suspects <= 32
    assert play.failed() == set()
    assert play.now_s < 10.0 + 20.0


def mortal(play: Callable[[], Play], one: Replica, killers: set[int], away_s: float) -> Engine:
    """An engine that dies of some lines 0.1 s after they came, with all that is in flight."""
    back_at_s = [0.0]

    def die() -> None:
        if play().now_s >= back_at_s[0]:
            back_at_s[0] = play().now_s + away_s
            play().cut(one)

    def engine(request: Request | None, now_s: float) -> tuple[float, Outcome]:
        if now_s < back_at_s[0]:
            return 0.001, UNREACHED
        if request is not None and request.line in killers:
            play().at(now_s + 0.1, die)
        return 1.0, OK

    return engine


@pytest.mark.parametrize("away_s", [0.0, 3.0])
@pytest.mark.parametrize("window", [1, 4, 16, 64])
def test_a_request_that_kills_its_engine_ends_and_no_other_does(window: int, away_s: float) -> None:
    core, one = Dispatch(), replica(window=window)
    add(core, 100)
    deaths = 0
    play: Play

    def counted() -> Play:
        return play

    play = Play(core, {one: mortal(counted, one, {50}, away_s)})
    cut = play.cut

    def count(at: Replica, outcome: Outcome = DIED) -> None:
        nonlocal deaths
        deaths += 1
        cut(at, outcome)

    play.cut = count  # type: ignore[method-assign]
    play.run()
    assert play.failed() == {("b", 50)}
    poisoned = play.ended["b", 50]
    assert isinstance(poisoned, Rejected)
    assert poisoned.code == "engine_crash"
    assert deaths <= limits.CRASH_COUNT_MAX + window.bit_length() + 2, "halves, then strikes"


def test_several_killers_end_and_nobody_is_blamed_for_being_near_them() -> None:
    core, one = Dispatch(), replica(window=16)
    batches(core, b=300)
    killers = {3, 4, 77, 1_010, 2_040}
    play: Play
    play = Play(core, {one: mortal(lambda: play, one, killers, 0.5)})
    play.run()
    assert {line for _, line in play.failed()} == killers


def test_a_request_on_trial_waits_until_it_is_alone_and_then_has_no_company() -> None:
    core, one = Dispatch(), replica(window=4)
    head = add(core, 6).pending[0]
    head.has_failed, head.company, head.crash_count = True, 1, limits.CRASH_COUNT_MAX - 1
    assert take_all(core, one) == [head]
    core.settle(head, one, OK, 1.0, 0.5)
    assert len(take_all(core, one, 1.0)) == 4


def test_a_connection_that_is_cut_while_others_go_on_is_a_try_and_no_death() -> None:
    core, one = Dispatch(attempts_max=3), replica(window=2)
    add(core, 30)
    (bad, other) = take_all(core, one)
    core.settle(bad, one, DIED, 1.0, 0.5)
    core.settle(other, one, OK, 1.5, 0.5)  # it was in flight then, and lives
    assert (bad.company, bad.crash_count, bad.tries) == (0, 0, 1)


def test_a_balancer_that_cuts_long_calls_is_recognised_and_the_others_go_on() -> None:
    core, one = Dispatch(), replica(window=8)
    batches(core, long=4, good=400)

    def engine(request: Request | None, _now_s: float) -> tuple[float, Outcome]:
        is_long = request is not None and request.run.key.batch_id == "long"
        return (60.0, DIED) if is_long else (1.0, OK)

    play = Play(core, {one: engine}).run()
    assert {name for name, _ in play.failed()} == {"long"}
    assert len(play.failed()) == 4
    assert one.cuts.age_s == pytest.approx(60.0)
    last = play.ended["long", 1]
    assert isinstance(last, Rejected)
    assert "proxy" in last.message and "60 s" in last.message
    assert play.last_of("good") < 2 * 400 / 8 + 2 * COMMIT_S


# ---- what a verdict rests on ----


def test_a_request_is_in_doubt_until_somebody_elses_call_has_ended() -> None:
    core, one = Dispatch(), replica(window=2)
    add(core, 2)
    (bad, good) = take_all(core, one)
    assert core.settle(bad, one, SERVER_ERROR, 1.0, 0.5) == InDoubt()
    assert take_all(core, one, 1.5) == []
    assert bad.tries == 0
    assert core.settle(good, one, OK, 1.6, 0.5) == Finish(OK)
    take_all(core, one, 1.6)
    assert bad.tries == 1


def test_a_trial_that_finds_no_room_decides_nothing() -> None:
    core, one = Dispatch(), replica(window=2)
    add(core, 1)
    (bad,) = take_all(core, one)
    core.settle(bad, one, SERVER_ERROR, 1.0, 0.5)
    scope = core.trial(one, 1.0)
    assert scope is not None
    core.trial_ended(one, scope, Throttled("busy"), 1.1)
    assert (scope.held, bad.tries) == (None, 0)
    assert scope.trial_at_s is not None


def test_a_trial_that_is_called_off_is_sent_again() -> None:
    core, one = Dispatch(), replica(window=2)
    add(core, 1)
    (bad,) = take_all(core, one)
    core.settle(bad, one, SERVER_ERROR, 1.0, 0.5)
    scope = core.trial(one, 1.0)
    assert scope is not None
    core.trial_ended(one, scope, None, 1.1)
    wake_s = core.next_wake_s([one], 1.1)
    assert wake_s is not None
    assert core.trial(one, wake_s) is scope


def test_a_replica_that_is_somebody_elses_is_tried_by_nobody_here() -> None:
    core, one = Dispatch(), replica(window=2)
    add(core, 1)
    (bad,) = take_all(core, one)
    core.settle(bad, one, SERVER_ERROR, 1.0, 0.5)
    one.owned_until_s = 1.0
    assert core.trial(one, 1.0) is None


def test_a_request_whose_replica_went_to_another_worker_runs_elsewhere_uncharged() -> None:
    """Nobody here may try that replica any more, so nothing would ever decide."""
    core, one, other = Dispatch(), replica(), replica("http://b")
    add(core, 1)
    (bad,) = take_all(core, one)
    assert core.settle(bad, one, SERVER_ERROR, 1.0, 0.5) == InDoubt()
    assert take_all(core, other, 1.1) == []
    one.owned_until_s = 1.2
    assert take_all(core, other, 1.2) == [bad]
    assert bad.tries == 0


def test_a_request_whose_replica_is_away_from_its_worker_for_a_moment_goes_on_there() -> None:
    core, one = Dispatch(), replica()
    add(core, 1)
    (bad,) = take_all(core, one)
    core.settle(bad, one, SERVER_ERROR, 1.0, 0.5)
    one.owned_until_s = 1.1
    assert take_all(core, one, 1.2) == []
    one.owned_until_s = float("inf")
    assert try_all(core, one, 1.3) == [("m", "/v1/chat/completions")]
    assert take_all(core, one, 1.3) == [bad]
    assert bad.tries == 0


def test_what_was_decided_before_the_replica_went_is_charged_all_the_same() -> None:
    core, one, other = Dispatch(), replica(window=2), replica("http://b")
    add(core, 2)
    (bad, good) = take_all(core, one)
    core.settle(bad, one, SERVER_ERROR, 1.0, 0.5)
    core.settle(good, one, OK, 1.1, 0.5)
    one.owned_until_s = 1.1
    take_all(core, other, 1.2)
    assert bad.tries == 1


@pytest.mark.parametrize("end", [OK, SERVER_ERROR, DIED, None])
def test_a_suspect_that_is_cleared_while_it_runs_elsewhere_is_no_more_counted_there(
    end: Outcome | None,
) -> None:
    """Else that replica would take no suspect for good."""
    core, one, other = Dispatch(), replica(), replica("http://b")
    add(core, 1)
    (cut,) = take_all(core, one)
    core.settle(cut, one, DIED, 1.0, 0.0)
    assert take_all(core, other, 1.0) == [cut]
    assert (cut.company, other.suspects.in_flight) == (1, 1)
    one.is_away("connection refused", 1.1, "unreachable")
    assert cut.company == 0
    if end is None:
        core.abandon(cut, other, 2.0)
    else:
        core.settle(cut, other, end, 2.0, 0.0)
    assert other.suspects.in_flight == 0
