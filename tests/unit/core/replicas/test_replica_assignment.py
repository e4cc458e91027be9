"""Fair shares, and who is gone: the decision behind replica ownership."""

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.replicas.replica_assignment import (
    Fleet,
    Member,
    MembershipView,
    Moves,
    Owner,
    divide,
    plan,
)

TTL_S = 30.0
ALL = tuple(f"r{number}" for number in range(8))


def fleet(owners: Mapping[str, str | None], **wants: tuple[str, ...]) -> Fleet:
    return Fleet(
        tuple(Member(worker, 1, TTL_S, frozenset(names)) for worker, names in wants.items()),
        {name: Owner(owner, 1) if owner else None for name, owner in owners.items()},
    )


def nobody_s(*names: str) -> dict[str, str | None]:
    return dict.fromkeys(names)


def test_the_only_worker_claims_all_that_it_lists() -> None:
    assert plan("a", fleet(nobody_s("r0", "r1"), a=("r0", "r1")), ()) == Moves((), ("r0", "r1"), ())


@pytest.mark.parametrize(("workers", "most"), [(1, 8), (2, 4), (3, 3), (4, 2), (8, 1), (9, 1)])
def test_nobody_gets_more_than_its_share(workers: int, most: int) -> None:
    due = divide({f"w{n}": frozenset(ALL) for n in range(workers)}, nobody_s(*ALL))
    assert max(Counter(due.values()).values()) == most
    assert None not in due.values()


def test_a_new_worker_gets_its_share_and_nothing_else_moves() -> None:
    owners: dict[str, str | None] = {name: "ab"[n % 2] for n, name in enumerate(ALL)}
    wants = dict.fromkeys("abc", ALL)
    moves = {who: plan(who, fleet(owners, **wants), ()) for who in "abc"}
    given_back = moves["a"].give_back + moves["b"].give_back
    assert [len(moves[who].give_back) for who in "abc"] == [1, 1, 0]
    assert all(not move.claim for move in moves.values()), "nothing is free yet"
    freed = owners | nobody_s(*given_back)
    assert plan("c", fleet(freed, **wants), ()).claim == tuple(sorted(given_back))
    settled = freed | dict.fromkeys(given_back, "c")
    for who in "abc":
        assert plan(who, fleet(settled, **wants), ()) == Moves((), (), ())


def test_what_a_gone_worker_owned_is_claimed_by_those_who_live() -> None:
    seen = fleet({"r0": "dead", "r1": "a"}, a=("r0", "r1"), b=("r0", "r1"), dead=("r0", "r1"))
    gone = [member for member in seen.members if member.worker_id == "dead"]
    assert plan("b", seen, gone) == Moves(tuple(gone), ("r0",), ())
    assert plan("a", seen, gone) == Moves(tuple(gone), (), ())


def test_a_worker_never_retires_itself() -> None:
    seen = fleet({"r0": "a"}, a=("r0",))
    assert plan("a", seen, seen.members) == Moves((), (), ())


def test_who_wants_nothing_any_more_gives_all_back() -> None:
    seen = fleet({"r0": "a", "r1": "a"}, a=(), b=("r1",))
    assert plan("a", seen, ()).give_back == ("r0", "r1")
    assert plan("b", seen, ()).claim == ()


def test_what_its_owner_lists_no_more_moves_nothing_else() -> None:
    """b's list is older: r0 has left, and b is to have r2 and r3 as before."""
    owners = {"r0": "a", "r1": "a", "r2": "b", "r3": "b"}
    seen = fleet(owners, a=("r1", "r2", "r3"), b=("r0", "r1", "r2", "r3"))
    assert plan("a", seen, ()) == Moves((), (), ("r0",))
    assert plan("b", seen, ()) == Moves((), (), ())


def test_a_replica_that_one_worker_lists_is_its_own() -> None:
    due = divide(
        {"a": frozenset({"r0", "r1"}), "b": frozenset({"r1", "r2"})}, nobody_s("r0", "r1", "r2")
    )
    assert (due["r0"], due["r2"]) == ("a", "b")


def test_replicas_move_along_a_chain_of_workers_that_share_no_list() -> None:
    """a has three and c one, and only b lists some of both."""
    owners: dict[str, str | None] = {"r0": "a", "r1": "a", "r2": "a", "r3": "b", "r4": "b"}
    wants = {
        "a": frozenset({"r0", "r1", "r2"}),
        "b": frozenset({"r2", "r3", "r4"}),
        "c": frozenset({"r4", "r5"}),
    }
    due = divide(wants, owners | {"r5": "c"})
    assert Counter(due.values()) == {"a": 2, "b": 2, "c": 2}


FLEETS = st.dictionaries(
    st.sampled_from("abcde"), st.frozensets(st.sampled_from(ALL), max_size=8), min_size=1
)
OWNERS = st.fixed_dictionaries({name: st.sampled_from([None, *"abcdex"]) for name in ALL})


@given(FLEETS, OWNERS)
def test_a_division_gives_each_replica_to_one_who_wants_it_and_is_then_at_rest(
    wants: dict[str, frozenset[str]], owners: dict[str, str | None]
) -> None:
    due = divide(wants, owners)
    for name, worker in due.items():
        if worker is None:
            assert all(name not in wanted for wanted in wants.values())
        else:
            assert name in wants[worker]
    assert divide(wants, due) == due, "once it is so, nobody moves again"


@given(FLEETS, OWNERS)
def test_moves_of_all_workers_agree(
    wants: dict[str, frozenset[str]], owners: dict[str, str | None]
) -> None:
    """Nobody claims what another claims, or gives back what nobody else is to have."""
    owners = {name: owner if owner in wants else None for name, owner in owners.items()}
    seen = fleet(owners, **{who: tuple(names) for who, names in wants.items()})
    claims = [name for who in wants for name in plan(who, seen, ()).claim]
    assert len(claims) == len(set(claims))
    assert all(owners[name] is None for name in claims)
    for who in wants:
        assert all(owners[name] == who for name in plan(who, seen, ()).give_back)


@given(st.integers(1, 5), st.integers(0, 8))
def test_with_one_list_for_all_no_two_shares_differ_by_more_than_one(
    workers: int, replicas: int
) -> None:
    names = frozenset(ALL[:replicas])
    due = divide(dict.fromkeys("abcde"[:workers], names), dict.fromkeys(names, "a"))
    counts = [list(due.values()).count(worker) for worker in "abcde"[:workers]]
    assert max(counts) - min(counts) <= 1


def beat(number: int) -> Fleet:
    return Fleet((Member("a", number, TTL_S, frozenset()),), {})


def test_a_worker_is_gone_when_its_heartbeat_stood_still_for_its_lease() -> None:
    watch = MembershipView().observe(beat(1), 100.0, 15.0)
    for at_s in (110.0, 120.0, 129.9):
        watch = watch.observe(beat(1), at_s, 15.0)
        assert watch.gone(beat(1)) == ()
    watch = watch.observe(beat(1), 130.0, 15.0)
    assert [member.worker_id for member in watch.gone(beat(1))] == ["a"]


def test_a_heartbeat_that_moves_begins_the_lease_anew() -> None:
    watch = MembershipView().observe(beat(1), 100.0, 15.0).observe(beat(1), 114.0, 15.0)
    watch = (
        watch.observe(beat(2), 128.0, 15.0)
        .observe(beat(2), 140.0, 15.0)
        .observe(beat(2), 150.0, 15.0)
    )
    assert watch.gone(beat(2)) == ()


def test_nobody_is_given_up_for_a_time_in_which_nobody_looked() -> None:
    """The database was away: all heartbeats stood still."""
    watch = MembershipView().observe(beat(1), 100.0, 15.0).observe(beat(1), 500.0, 15.0)
    assert watch.gone(beat(1)) == ()
