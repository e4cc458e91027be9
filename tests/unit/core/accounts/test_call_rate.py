"""Calls of owners, counted in virtual time."""

from lowtide.core.accounts.call_rate import CallRateLimiter


def calls_let_through(rates: CallRateLimiter, owner: str, *, until_s: int, step_s: float) -> int:
    """Of an owner that calls at every step."""
    steps = int(until_s / step_s)
    return sum(rates.take(owner, 60, step * step_s) == 0 for step in range(steps))


def test_an_owner_gets_a_minutes_worth_at_once_and_then_its_rate() -> None:
    rates = CallRateLimiter()
    assert [rates.take("a", 60, 0.0) for _ in range(60)] == [0.0] * 60
    assert rates.take("a", 60, 0.0) == 1.0
    assert calls_let_through(CallRateLimiter(), "a", until_s=600, step_s=0.125) == 60 + 599


def test_a_refused_call_costs_nothing_and_the_wait_is_enough() -> None:
    rates = CallRateLimiter()
    for _ in range(60):
        rates.take("a", 60, 0.0)
    waits = [rates.take("a", 60, 0.5) for _ in range(1000)]
    assert waits == [0.5] * 1000
    assert rates.take("a", 60, 1.0) == 0


def test_another_owner_is_not_held_up() -> None:
    rates = CallRateLimiter()
    for _ in range(100):
        rates.take("a", 60, 0.0)
    assert rates.take("a", 60, 0.0) > 0
    assert rates.take("b", 60, 0.0) == 0


def test_what_a_call_cost_beyond_one_is_owed() -> None:
    rates = CallRateLimiter()
    assert rates.take("a", 60, 0.0) == 0
    rates.owe("a", 100, 0.0)
    assert rates.take("a", 60, 0.0) == 42.0
    rates.owe("unknown", 100, 0.0)
    assert rates.take("unknown", 60, 0.0) == 0


def test_a_changed_limit_holds_from_the_next_call_on() -> None:
    rates = CallRateLimiter()
    assert rates.take("a", 60, 0.0) == 0
    assert rates.take("a", 1, 0.0) == 0
    assert rates.take("a", 1, 0.0) == 60.0


def test_owners_beyond_the_bound_are_forgotten_longest_silent_first() -> None:
    rates = CallRateLimiter(buckets_max=2)
    for owner in ("a", "b", "a", "c"):
        assert rates.take(owner, 2, 0.0) == 0
    assert rates.take("a", 2, 0.0) > 0, "kept"
    assert rates.take("b", 2, 0.0) == 0, "forgotten, so it begins anew"
