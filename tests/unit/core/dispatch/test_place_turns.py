"""core/dispatch/place_turns.py through core/dispatch/dispatch.py: places by organization."""

from collections import Counter

import pytest
from dispatch_cases import OK, add, replica, take_all
from virtual_engine import Play

from lowtide import limits
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.request import Request
from lowtide.core.faults.outcome import Outcome

SLOW_S, QUICK_S = 20.0, 0.02


def slow_and_quick(request: Request | None, _now_s: float) -> tuple[float, Outcome]:
    """Lines of batch `a` take long."""
    is_slow = request is not None and request.run.key.batch_id.startswith("a")
    return (SLOW_S if is_slow else QUICK_S), OK


def owners(requests: list[Request]) -> Counter[str]:
    return Counter(request.run.lease.organization_id for request in requests)


def test_one_batch_waits_for_a_moment_and_not_for_the_hundred_that_came_before() -> None:
    """A has leased a hundred chunks of slow lines; B comes, and waits for no slow call."""
    core, one = Dispatch(), replica(window=64)
    for number in range(100):
        add(core, 128, f"a{number}", owner="A")
    play = Play(core, {one: slow_and_quick})
    came_s = SLOW_S / 2
    play.at(came_s, lambda: add(core, 128, "b", owner="B") and None)
    play.run(until_s=10 * SLOW_S)
    given = 64 * limits.PREEMPT_PART
    waited_s = limits.PREEMPT_AFTER_S + 128 / given * QUICK_S
    assert play.last_of("b") == pytest.approx(came_s + waited_s, rel=0.01)


def test_quick_calls_keep_their_places_beside_slow_ones() -> None:
    """Places are shared while they are held: one for one, B would do as many calls as A."""
    core, one = Dispatch(), replica(window=4)
    add(core, 128, "a", owner="A")
    add(core, 128, "b", owner="B")
    play = Play(core, {one: slow_and_quick}).run(until_s=SLOW_S / 2)
    assert Counter(name for name, _ in play.ended) == {"b": 128}


def test_places_are_divided_by_weight() -> None:
    core, one = Dispatch(), replica(window=12)
    add(core, 128, "a", owner="A", weight=2.0)
    add(core, 128, "b", owner="B")
    add(core, 128, "c", owner="C")
    assert owners(take_all(core, one)) == {"A": 6, "B": 3, "C": 3}


def test_no_place_stays_free_for_who_has_nothing_to_send() -> None:
    core, one = Dispatch(), replica(window=12)
    add(core, 128, "a", owner="A")
    add(core, 2, "b", owner="B")
    assert owners(take_all(core, one)) == {"A": 10, "B": 2}


def test_a_single_place_goes_from_one_to_the_next() -> None:
    core, one = Dispatch(), replica(window=1)
    for owner in "ABC":
        add(core, 9, owner, owner=owner)
    order = ""
    for _ in range(9):
        (request,) = take_all(core, one)
        order += request.run.lease.organization_id
        core.settle(request, one, OK, 0.0, 0.5)
    assert order == "ABCABCABC"


def test_models_of_one_replica_share_its_places() -> None:
    core, one = Dispatch(), replica(window=8, models=("m", "n"))
    for seq in range(9):
        add(core, 128, "a", seq, owner="A")
    add(core, 128, "b", owner="B", model="n")
    assert owners(take_all(core, one)) == {"A": 4, "B": 4}


def test_within_its_turn_an_organization_stays_with_its_chunk() -> None:
    core = Dispatch()
    one, other = replica("http://a", window=64), replica("http://b", window=64)
    for seq in range(4):
        add(core, 16, "a", seq, owner="A")
        add(core, 16, "b", seq, owner="B")
    first = [core.take(one, 0.0) for _ in range(32)]
    second = [core.take(other, 0.0) for _ in range(32)]
    chunks = [{r.run.key for r in taken if r is not None} for taken in (first, second)]
    assert [len(each) for each in chunks] == [2, 2]
    assert chunks[0].isdisjoint(chunks[1])


def test_calls_that_were_taken_back_hold_no_place() -> None:
    core, one = Dispatch(), replica(window=4)
    add(core, 9, "a", owner="A")
    mine = take_all(core, one)
    add(core, 9, "b", owner="B")
    for request in mine:
        core.abandon(request, one, 0.0)
        core.put_back(request)
    assert owners(take_all(core, one)) == {"A": 2, "B": 2}


def test_calls_of_chunks_that_are_gone_count_until_they_end() -> None:
    core, one = Dispatch(), replica(window=4)
    run = add(core, 2, "a", owner="A")
    gone = take_all(core, one)
    core.remove(run.key)
    add(core, 9, "a", 1, owner="A")
    add(core, 9, "b", owner="B")
    assert owners(take_all(core, one)) == {"B": 2}
    for request in gone:
        core.abandon(request, one, 0.0)
    assert owners(take_all(core, one)) == {"A": 2}


def test_what_runs_out_beside_others_work_is_told_twice() -> None:
    core, one = Dispatch(), replica(window=1024)
    add(core, 128, "a", owner="A")
    add(core, 128, "b", owner="B")
    reported = []
    for count in range(256):
        core.runs_short = False
        core.take(one, 0.0)
        reported += [count // 2] if core.runs_short else []
    low = 128 - limits.SUPPLY_LOW
    assert reported == [low, low, 127, 127], "each when half is gone, and at its end"


def test_alone_nobody_runs_short() -> None:
    core, one = Dispatch(), replica(window=1024)
    add(core, 128, "a", owner="A")
    take_all(core, one)
    assert not core.runs_short


@pytest.mark.parametrize(("count", "expected"), [(10, {"B"}), (11, set())])
def test_who_has_enough_ready_is_known_by_models(count: int, expected: set[str]) -> None:
    core = Dispatch()
    add(core, 9, "a", owner="A")
    add(core, 5, "b", 0, owner="B")
    add(core, 5, "b", 1, owner="B", model="n")
    assert core.supplied(["m", "n"], count) == expected
