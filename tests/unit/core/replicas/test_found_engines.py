"""What a source's lists come to: which engines may have work, and which must stay first."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.core.replicas.found_engines import FoundEngine, SourceView, is_host, is_replica_name

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def engine(name: str, port: int = 8000) -> FoundEngine:
    return FoundEngine(name, "10.0.0.1", port)


A, B = engine("a"), engine("b")


def names(view: SourceView, now_s: float) -> list[str]:
    return [each.name for each in view.usable(now_s)]


def flapped(times: int, at_s: float = 0.0) -> SourceView:
    """The view after the engine has come and gone so often, a second each."""
    view = SourceView()
    for n in range(times):
        view = view.with_engines([A], at_s + 2 * n).with_engines([], at_s + 2 * n + 1)
    return view


def test_an_engine_is_usable_at_once_and_not_any_more_once_it_is_unlisted() -> None:
    view = SourceView().with_engines([A, B], 5.0)
    assert names(view, 5.0) == ["a", "b"]
    assert names(view.with_engines([B], 6.0), 6.0) == ["b"]


def test_a_source_that_fails_keeps_its_list_and_says_since_when() -> None:
    view = SourceView().with_engines([A], 0.0).failed("no route", NOW)
    later = view.failed("still no route", NOW + timedelta(seconds=9))
    assert (names(later, 9.0), later.stale_since) == (["a"], NOW)
    assert later.error == "still no route"
    back = later.with_engines([A], 10.0)
    assert (back.stale_since, back.error) == (None, "")


def test_a_source_that_never_answered_is_stale_and_has_told_nothing() -> None:
    view = SourceView().failed("refused", NOW)
    assert (view.engines, view.has_answered, view.stale_since) == ((), False, NOW)


def test_a_rollout_or_a_restart_holds_nothing_up() -> None:
    view = flapped(limits.SOURCE_DEPARTURES_FREE).with_engines([A], 100.0)
    assert names(view, 100.0) == ["a"]
    assert view.next_usable_s(100.0) is None


def test_an_engine_that_keeps_leaving_has_to_stay_longer_and_longer() -> None:
    holds = []
    for more in (1, 2, 3, 9):
        view = flapped(limits.SOURCE_DEPARTURES_FREE + more).with_engines([A], 100.0)
        assert names(view, 100.0) == []
        usable_s = view.next_usable_s(100.0)
        assert usable_s is not None
        assert names(view, usable_s) == ["a"]
        holds.append(usable_s - 100.0)
    hold_s = limits.SOURCE_HOLD_S
    assert holds == [hold_s, 2 * hold_s, 4 * hold_s, limits.SOURCE_HOLD_S_MAX]


def test_one_that_flaps_does_not_hold_up_the_others() -> None:
    view = flapped(limits.SOURCE_DEPARTURES_FREE + 2).with_engines([A, B], 100.0)
    assert names(view, 100.0) == ["b"]


def test_what_was_long_ago_is_forgiven_and_forgotten() -> None:
    view = flapped(9)
    late_s = 20.0 + limits.SOURCE_DEPARTURES_KEEP_S
    assert names(view.with_engines([A], late_s), late_s) == ["a"]
    assert view.with_engines([], late_s).presences == {}


def test_an_engine_that_moves_is_the_same_and_does_not_count_as_one_that_left() -> None:
    view = SourceView()
    for n in range(9):
        view = view.with_engines([engine("a", 8000 + n)], float(n))
    assert names(view, 8.0) == ["a"]
    assert view.engines[0].port == 8008


def test_of_two_with_one_name_the_first_counts_and_bad_names_are_left_out() -> None:
    view = SourceView().with_engines([A, engine("a", 9), engine("two words"), engine("")], 0.0)
    assert view.engines == (A,)


def test_more_engines_than_a_source_may_have_are_left_out() -> None:
    many = [engine(f"e{n}") for n in range(limits.SOURCE_ENGINES_MAX + 5)]
    assert len(SourceView().with_engines(many, 0.0).engines) == limits.SOURCE_ENGINES_MAX


@given(st.lists(st.sets(st.sampled_from("abc")), max_size=30))
def test_what_is_usable_is_listed_and_memory_is_bounded(lists: list[set[str]]) -> None:
    view = SourceView()
    for now_s, listed in enumerate(lists):
        view = view.with_engines([engine(name) for name in sorted(listed)], float(now_s))
        assert set(names(view, now_s)) <= listed
        assert all(
            len(each.departures) <= limits.SOURCE_DEPARTURES_KEPT
            for each in view.presences.values()
        )
        due_s = view.next_usable_s(float(now_s))
        held = listed - set(names(view, now_s))
        assert (due_s is None) == (not held)


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "gpu-7", "a_b.svc.cluster.local", "x."])
def test_an_address_or_a_name_can_be_a_host(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host", ["", "10.0.0.1:80", "fe80::1%eth0", "a b", "user@h", "h/path", "-x", "a..b", "é.org"]
)
def test_anything_else_cannot(host: str) -> None:
    assert not is_host(host)


def test_a_name_fits_into_logs_and_metrics() -> None:
    assert is_replica_name("ns/pod-0:8000")
    assert not is_replica_name("x" * (limits.REPLICA_NAME_CHARS_MAX + 1))
