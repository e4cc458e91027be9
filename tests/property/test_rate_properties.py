"""The promise of the rate pool, over any traffic: never more than the limit's share and a burst."""

from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.accounts.rate_limit import MINUTE_S, Allowance, RateLimiter

CALLS = st.lists(
    st.tuples(
        st.floats(0, 40, allow_nan=False),  # seconds since the call before
        st.integers(0, 300),  # tokens asked
        st.floats(0, 1.5, allow_nan=False),  # share of them used
    ),
    max_size=60,
)
LIMIT = st.integers(1, 200)


@given(CALLS, LIMIT, LIMIT)
def test_no_window_admits_more_than_its_share_and_a_minutes_worth(
    calls: list[tuple[float, int, float]], requests_max: int, tokens_max: int
) -> None:
    pool, bounds = RateLimiter(), Allowance(requests_max, tokens_max)
    now_s, admitted = 0.0, [(0.0, 0.0)]
    for gap_s, tokens, _ in calls:
        now_s += gap_s
        verdict = pool.admit("k", "m", bounds, tokens, now_s)
        if verdict.admitted:
            assert verdict.retry_after_s == 0
            admitted.append((now_s, float(verdict.reserved_tokens)))
        else:
            assert verdict.retry_after_s > 0
    del admitted[0]
    for first, (from_s, _) in enumerate(admitted):
        tokens_seen = 0.0
        for count, (to_s, reserved) in enumerate(admitted[first:], 1):
            minutes = (to_s - from_s) / MINUTE_S
            tokens_seen += reserved
            assert count <= requests_max * (1 + minutes) + 1e-6
            assert tokens_seen <= tokens_max * (1 + minutes) + 1e-6


@given(CALLS, LIMIT)
def test_waiting_as_long_as_told_is_enough(
    calls: list[tuple[float, int, float]], tokens_max: int
) -> None:
    pool, bounds = RateLimiter(), Allowance(tokens_per_minute=tokens_max)
    now_s = 0.0
    for gap_s, tokens, share in calls:
        now_s += gap_s
        verdict = pool.admit("k", "m", bounds, tokens, now_s)
        if not verdict.admitted:
            now_s += verdict.retry_after_s + 1e-6
            verdict = pool.admit("k", "m", bounds, tokens, now_s)
        assert verdict.admitted
        pool.correct("k", "m", verdict, int(share * tokens), now_s)


@given(CALLS, LIMIT)
def test_what_is_used_in_the_long_run_stays_within_the_limit_and_the_last_call(
    calls: list[tuple[float, int, float]], tokens_max: int
) -> None:
    """Estimates may be wrong either way; debts are paid before anything else is let through."""
    pool, bounds = RateLimiter(), Allowance(tokens_per_minute=tokens_max)
    now_s, used, last = 0.0, 0.0, 0
    for gap_s, tokens, share in calls:
        now_s += gap_s
        verdict = pool.admit("k", "m", bounds, tokens, now_s)
        if verdict.admitted:
            last = min(int(share * tokens), 9 * tokens_max)  # below where debts are forgiven
            pool.correct("k", "m", verdict, last, now_s)
            used += last
            assert used <= tokens_max * (1 + now_s / MINUTE_S) + last + 1e-6
