"""Token buckets: what a minute allows, what a correction gives back, what is forgotten."""

import pytest

from lowtide.core.accounts.rate_limit import Allowance, LimitStatus, RateLimiter
from lowtide.limits import LIVE_DEBT_MINUTES_MAX

KEY, MODEL = "key_1", "m"


def test_without_a_limit_nothing_is_counted_or_kept() -> None:
    pool = RateLimiter()
    verdict = pool.admit(KEY, MODEL, Allowance(), 1_000_000, 0.0)
    assert verdict.admitted
    assert (verdict.requests, verdict.tokens) == (None, None)
    assert len(pool) == 0


def test_a_full_bucket_lets_a_minutes_worth_through_at_once_and_then_one_at_a_time() -> None:
    pool, bounds = RateLimiter(), Allowance(requests_per_minute=60)
    assert all(pool.admit(KEY, MODEL, bounds, 1, 0.0).admitted for _ in range(60))
    refused = pool.admit(KEY, MODEL, bounds, 1, 0.0)
    assert not refused.admitted
    assert refused.retry_after_s == pytest.approx(1.0)
    assert refused.requests == LimitStatus(60, 0, 60.0)
    assert pool.admit(KEY, MODEL, bounds, 1, 1.0).admitted
    assert not pool.admit(KEY, MODEL, bounds, 1, 1.5).admitted


def test_what_is_left_and_when_it_is_whole_again_is_told() -> None:
    pool, bounds = RateLimiter(), Allowance(requests_per_minute=60, tokens_per_minute=600)
    verdict = pool.admit(KEY, MODEL, bounds, 100, 0.0)
    assert verdict.requests == LimitStatus(60, 59, 1.0)
    assert verdict.tokens == LimitStatus(600, 500, 10.0)


def test_a_call_refused_for_its_tokens_costs_no_request() -> None:
    pool, bounds = RateLimiter(), Allowance(requests_per_minute=10, tokens_per_minute=100)
    assert pool.admit(KEY, MODEL, bounds, 90, 0.0).admitted
    refused = pool.admit(KEY, MODEL, bounds, 50, 0.0)
    assert not refused.admitted
    assert refused.requests == LimitStatus(10, 9, 6.0)
    assert refused.retry_after_s == pytest.approx(24.0)


def test_keys_and_models_have_buckets_of_their_own() -> None:
    pool, bounds = RateLimiter(), Allowance(requests_per_minute=1)
    assert pool.admit(KEY, MODEL, bounds, 1, 0.0).admitted
    assert pool.admit("key_2", MODEL, bounds, 1, 0.0).admitted
    assert pool.admit(KEY, "other", bounds, 1, 0.0).admitted
    assert not pool.admit(KEY, MODEL, bounds, 1, 0.0).admitted


@pytest.mark.parametrize(("used", "left"), [(10, 90), (100, 0), (40, 60)])
def test_the_estimate_is_corrected_by_what_was_used(used: int, left: int) -> None:
    pool, bounds = RateLimiter(), Allowance(tokens_per_minute=100)
    verdict = pool.admit(KEY, MODEL, bounds, 60, 0.0)
    pool.correct(KEY, MODEL, verdict, used, 0.0)
    now = pool.admit(KEY, MODEL, bounds, 0, 0.0).tokens
    assert now is not None
    assert now.remaining == left


def test_a_call_larger_than_a_minutes_worth_waits_for_a_full_bucket_and_owes_the_rest() -> None:
    pool, bounds = RateLimiter(), Allowance(tokens_per_minute=60)
    verdict = pool.admit(KEY, MODEL, bounds, 1_000, 0.0)
    assert verdict.admitted
    assert verdict.reserved_tokens == 60
    pool.correct(KEY, MODEL, verdict, 120, 0.0)  # twice a minute's worth: a minute of debt
    refused = pool.admit(KEY, MODEL, bounds, 1, 59.0)
    assert not refused.admitted
    assert pool.admit(KEY, MODEL, bounds, 1, 61.5).admitted


def test_no_report_of_an_engine_locks_a_caller_out_for_ever() -> None:
    pool, bounds = RateLimiter(), Allowance(tokens_per_minute=60)
    verdict = pool.admit(KEY, MODEL, bounds, 1, 0.0)
    pool.correct(KEY, MODEL, verdict, 10**18, 0.0)
    assert pool.admit(KEY, MODEL, bounds, 1, 60.0 * (LIVE_DEBT_MINUTES_MAX + 1)).admitted


def test_a_changed_limit_holds_from_the_next_call() -> None:
    pool = RateLimiter()
    assert pool.admit(KEY, MODEL, Allowance(requests_per_minute=100), 1, 0.0).admitted
    level = pool.admit(KEY, MODEL, Allowance(requests_per_minute=2), 1, 0.0).requests
    assert level == LimitStatus(2, 1, 30.0)
    level = pool.admit(KEY, MODEL, Allowance(requests_per_minute=100), 1, 0.0).requests
    assert level is not None
    assert level.remaining == 0  # a raised limit fills in time, not at once
    unlimited = pool.admit(KEY, MODEL, Allowance(tokens_per_minute=5), 1, 0.0)
    assert unlimited.requests is None


def test_a_limit_of_nothing_lets_nothing_through() -> None:
    refused = RateLimiter().admit(KEY, MODEL, Allowance(requests_per_minute=0), 1, 0.0)
    assert not refused.admitted
    assert refused.retry_after_s == 60.0


def test_time_that_runs_backwards_gives_nothing_back() -> None:
    pool, bounds = RateLimiter(), Allowance(requests_per_minute=1)
    assert pool.admit(KEY, MODEL, bounds, 1, 100.0).admitted
    assert not pool.admit(KEY, MODEL, bounds, 1, 0.0).admitted
    assert not pool.admit(KEY, MODEL, bounds, 1, 130.0).admitted


def test_the_least_recently_used_buckets_are_forgotten_first() -> None:
    pool, bounds = RateLimiter(buckets_max=2), Allowance(requests_per_minute=1)
    for key in ("a", "b"):
        assert pool.admit(key, MODEL, bounds, 1, 0.0).admitted
    assert not pool.admit("a", MODEL, bounds, 1, 0.0).admitted  # used again: now b is the oldest
    assert pool.admit("c", MODEL, bounds, 1, 0.0).admitted
    assert len(pool) == 2
    assert not pool.admit("a", MODEL, bounds, 1, 0.0).admitted
    assert pool.admit("b", MODEL, bounds, 1, 0.0).admitted


def test_a_correction_after_the_buckets_were_forgotten_is_passed_over() -> None:
    pool, bounds = RateLimiter(buckets_max=1), Allowance(tokens_per_minute=10)
    verdict = pool.admit("a", MODEL, bounds, 5, 0.0)
    pool.admit("b", MODEL, bounds, 5, 0.0)
    pool.correct("a", MODEL, verdict, 100, 0.0)
    assert len(pool) == 1


def test_before_a_body_is_read_the_requests_of_all_models_are_what_there_is() -> None:
    pool = RateLimiter()
    allowance = Allowance(requests_per_minute=1)
    models = ("a", "b")
    assert pool.may_read("k", models, allowance, 0.0) is None
    assert pool.may_read("k", models, allowance, 0.0) is None
    refused = pool.may_read("k", models, allowance, 0.0)
    assert refused is not None, "two are being received, and there are no more"
    assert not refused.admitted
    assert refused.retry_after_s > 0
    assert pool.may_read("other", models, allowance, 0.0) is None
    pool.has_read("k")
    assert pool.may_read("k", models, allowance, 0.0) is None
    for _ in models:
        pool.has_read("k")


def test_a_key_whose_requests_are_used_up_learns_when_the_first_is_back() -> None:
    pool = RateLimiter()
    allowance = Allowance(requests_per_minute=1)
    pool.admit("k", "a", allowance, 1, 0.0)
    pool.admit("k", "b", allowance, 1, 30.0)
    refused = pool.may_read("k", ("a", "b"), allowance, 40.0)
    assert refused is not None
    assert refused.retry_after_s == pytest.approx(20.0)
    assert refused.requests is not None
    assert refused.requests.remaining == 0
    assert pool.may_read("k", ("a", "b"), allowance, 60.0) is None


def test_where_there_is_no_limit_nothing_is_counted() -> None:
    pool = RateLimiter()
    for _ in range(3):
        assert pool.may_read("k", ("a",), Allowance(tokens_per_minute=1), 0.0) is None
    pool.has_read("k")
    assert len(pool) == 0
