"""Whose deliveries are next: in turns, within a share."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.webhooks.turns import DueDeliveries, places_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def due(name: str, count: int, age_s: float = 0.0) -> DueDeliveries:
    return DueDeliveries(name, count, NOON - timedelta(seconds=age_s))


def test_places_go_round_from_who_has_waited_longest() -> None:
    waiting = [due("a", 9, 1), due("b", 9, 2), due("c", 9, 3)]
    assert places_of(waiting, {}, free=4, most=9) == {"a": 1, "b": 1, "c": 2}


def test_who_has_fewest_under_way_comes_first() -> None:
    waiting = [due("a", 9, 9), due("b", 9)]
    assert places_of(waiting, {"a": 3}, free=3, most=9) == {"b": 3}


def test_nobody_gets_more_than_a_share_or_than_there_is() -> None:
    waiting = [due("a", 9), due("b", 1)]
    assert places_of(waiting, {"a": 2}, free=9, most=4) == {"a": 2, "b": 1}
    assert places_of(waiting, {"a": 4, "b": 4}, free=9, most=4) == {}
    assert places_of(waiting, {}, free=0, most=4) == {}


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 9), st.integers(0, 5))),
    st.integers(0, 20),
    st.integers(1, 6),
)
def test_no_place_stays_free_while_somebody_may_have_it(
    tenants: dict[str, tuple[int, int]], free: int, most: int
) -> None:
    waiting = [due(name, count) for name, (count, _) in tenants.items()]
    under_way = {name: busy for name, (_, busy) in tenants.items()}
    given_places = places_of(waiting, under_way, free, most)
    could = sum(min(count, max(0, most - busy)) for count, busy in tenants.values())
    assert sum(given_places.values()) == min(free, could)
    for name, places in given_places.items():
        count, busy = tenants[name]
        assert places <= count and places + busy <= most
