"""core/dispatch/share_preemption.py: places that others hold for long are taken back."""

from collections import Counter
from collections.abc import Callable, Mapping
from math import ceil

import pytest
from dispatch_cases import OK, add, replica, take_all
from hypothesis import given
from hypothesis import strategies as st
from virtual_engine import Engine, Play

from lowtide import limits
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.dispatch.share_preemption import Claimant, fair_shares
from lowtide.core.faults.outcome import Outcome

NEVER_S = 1e9
WAIT_S = limits.PREEMPT_AFTER_S


def lasting(seconds: Mapping[str, float]) -> Engine:
    """Calls last as long as is said of their organizations."""

    def engine(request: Request | None, _now_s: float) -> tuple[float, Outcome]:
        owner = "" if request is None else request.run.lease.organization_id
        return seconds.get(owner, 0.02), OK

    return engine


def owners(core: Dispatch, one: Replica) -> Counter[str]:
    return Counter({name: held for name, _, held in core._turns.standing(one.name)})


@pytest.mark.parametrize("window", [2, 3, 8, 64, 512])
def test_a_batch_beside_calls_that_never_end_gets_places(window: int) -> None:
    core, one = Dispatch(), replica(window=window)
    fill_with = max(1024, 2 * window)
    for seq in range(-(-fill_with // 128)):
        add(core, 128, "a", seq, owner="A")
    play = Play(core, {one: lasting({"A": NEVER_S})})
    play.at(100.0, lambda: add(core, 128, "b", owner="B") and None)
    play.run(until_s=200.0)
    first = min(at_s for (name, _), at_s in play.ended_at_s.items() if name == "b")
    assert first == pytest.approx(100.0 + WAIT_S + 0.02)
    given = max(1, window * limits.PREEMPT_PART)
    assert play.last_of("b") <= 100.0 + WAIT_S + ceil(128 / given) * 0.02 + 1e-6


def test_where_there_is_one_place_nobody_is_taken_back() -> None:
    """It was given in turns; half of one place is none."""
    core, one = Dispatch(), replica(window=1)
    add(core, 2, "a", owner="A")
    play = Play(core, {one: lasting({"A": 50.0})})
    play.at(1.0, lambda: add(core, 1, "b", owner="B") and None)
    play.run()
    assert not play.preempted
    assert play.ended_at_s["b", 1] == pytest.approx(50.02), "one unit of A's, and no more"


def test_one_organization_alone_has_all_places_at_once_and_keeps_them() -> None:
    core, one = Dispatch(), replica(window=64)
    for number in range(4):
        add(core, 128, f"a{number}", owner="A")
    play = Play(core, {one: lasting({"A": 20.0})}).run()
    assert play.now_s == 512 / 64 * 20.0
    assert not play.preempted


def test_nothing_is_taken_for_who_has_nothing_to_send() -> None:
    core, one = Dispatch(), replica(window=64)
    add(core, 128, "a", owner="A")
    add(core, 1, "b", owner="B")
    play = Play(core, {one: lasting({"A": 20.0, "B": 40.0})})
    play.at(5.0, lambda: core.remove(add(core, 9, "c", owner="C").key) and None)
    play.run()
    assert not play.preempted


def test_nothing_is_taken_while_places_are_free() -> None:
    """Whatever a request waits for, it is not a place."""
    core, one = Dispatch(), replica(window=64)
    add(core, 32, "a", owner="A")
    take_all(core, one)
    add(core, 9, "b", owner="B")
    for at_s in (1.0, 9.0):
        assert not core.preempt(one, lambda: pytest.fail("nobody asks for calls"), at_s)


def test_the_youngest_calls_go_first() -> None:
    core, one = Dispatch(), replica(window=16)
    add(core, 12, "old", owner="A")
    calls = take_all(core, one, 1.0)
    add(core, 9, "young", owner="A")
    calls += take_all(core, one, 2.0)
    add(core, 9, "b", owner="B")
    assert core.preempt(one, lambda: calls, 3.0) == []
    assert core.next_wake_s([one], 3.0) == 3.0 + WAIT_S
    chosen = core.preempt(one, lambda: calls, 3.0 + WAIT_S)
    assert [request.run.key.batch_id for request in chosen] == ["young"] * 2


def test_a_request_loses_its_place_a_few_times_and_then_runs_to_its_end() -> None:
    """B comes anew each second, and takes every place that A has above its share."""
    core, one = Dispatch(), replica(window=8)
    add(core, 8, "a", owner="A")
    play = Play(core, {one: lasting({"A": 60.0, "B": 0.2})})
    for number in range(600):
        came = _coming(core, number)
        play.at(1.0 + number, came)
    play.run()
    lost = Counter(id(request) for request in play.preempted)
    assert max(lost.values()) == limits.PREEMPTED_MAX
    assert sum(name == "a" for name, _ in play.ended) == 8


def _coming(core: Dispatch, number: int) -> Callable[[], None]:
    return lambda: add(core, 4, f"b{number}", owner="B") and None


def test_nobody_is_taken_below_its_share() -> None:
    core, one = Dispatch(), replica(window=16)
    for seq in range(2):
        add(core, 128, "a", seq, owner="A")
    play = Play(core, {one: lasting({"A": NEVER_S, "B": NEVER_S})})
    play.at(10.0, lambda: add(core, 128, "b", owner="B") and None)
    play.run(until_s=1000.0)
    assert owners(core, one) == {"A": 12, "B": 4}, "half of its share of eight comes by force"
    assert len(play.preempted) == 4


def test_a_weight_counts_for_what_is_taken() -> None:
    core, one = Dispatch(), replica(window=16)
    add(core, 128, "a", owner="A")
    play = Play(core, {one: lasting({"A": NEVER_S, "B": NEVER_S})})
    play.at(10.0, lambda: add(core, 128, "b", owner="B", weight=3.0) and None)
    play.run(until_s=1000.0)
    assert owners(core, one) == {"A": 10, "B": 6}


@given(
    st.integers(1, 4096),
    st.lists(
        st.tuples(st.floats(0.1, 100.0), st.integers(0, 4096), st.integers(0, 4096)),
        min_size=1,
        max_size=12,
    ),
)
def test_shares_are_what_all_can_use_by_weight(
    places: int, drawn: list[tuple[float, int, int]]
) -> None:
    claimants = {str(number): Claimant(*each) for number, each in enumerate(drawn)}
    wants = {name: each.in_flight + each.waiting for name, each in claimants.items()}
    shares = fair_shares(places, claimants)
    assert shares.keys() == claimants.keys()
    assert all(0 <= share <= wants[name] + 1e-6 for name, share in shares.items())
    assert sum(shares.values()) == pytest.approx(min(places, sum(wants.values())))
    most = max(shares[name] / each.weight for name, each in claimants.items())
    for name, each in claimants.items():
        is_content = shares[name] >= wants[name] - 1e-6
        assert is_content or shares[name] / each.weight == pytest.approx(most)


@given(
    st.integers(2, 64),
    st.lists(st.floats(0.01, 1000.0), min_size=1, max_size=5),
    st.floats(0.0, 100.0),
)
def test_whoever_comes_anew_is_sent_within_a_moment_of_steps(
    window: int, seconds: list[float], came_s: float
) -> None:
    """However long others' calls last, and however many organizations there are."""
    core, one = Dispatch(), replica(window=window)
    lasts = {f"O{number}": each for number, each in enumerate(seconds)}
    for owner in lasts:
        add(core, 128, owner, owner=owner)
    play = Play(core, {one: lasting(lasts)})
    play.at(came_s, lambda: add(core, 1, "new", owner="new") and None)
    play.run(until_s=came_s + WAIT_S + 0.03)
    has_share = window >= len(lasts) + 1
    assert not has_share or ("new", 1) in play.ended
