"""The promise of a rate pool that several processes share, over any traffic and any exchange."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.accounts.rate_limit import MINUTE_S, Allowance, Kind, PoolName, RateLimiter
from lowtide.core.accounts.shared_pool import Exchange, Pool, nothing_asked, settle
from lowtide.core.accounts.shared_rates import SharedRateLimiter
from lowtide.limits import LIVE_SHARE_S

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
POOL = ("k", "m")


class SharedPools:
    """The store's part, in memory: each process settles alone with the pools that are left."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.pools: dict[PoolName, Pool] = {}

    def exchange(self, rates: SharedRateLimiter, now_s: float) -> None:
        now = BEGIN + timedelta(seconds=now_s)
        taken: dict[PoolName, Mapping[Kind, float]] = {}
        for report in rates.reports(now_s):
            pool = self.pools.get(report.name)
            self.pools[report.name], taken[report.name] = settle(pool, report, self.processes, now)
        reported = Exchange(processes=self.processes, taken=taken, changed=dict(self.pools))
        rates.settle(reported, now, now_s, now_s)

    def give_back(self, rates: SharedRateLimiter, now_s: float) -> None:
        """As a process that stops: it asks for nothing more."""
        for report in map(nothing_asked, rates.reports(now_s)):
            pool = self.pools.get(report.name)
            now = BEGIN + timedelta(seconds=now_s)
            self.pools[report.name], taken = settle(pool, report, self.processes, now)
            assert not any(taken.values())


def begun(processes: int) -> tuple[SharedPools, list[SharedRateLimiter]]:
    """Processes that know of each other, and a pool that nobody used."""
    pools = SharedPools(processes)
    all_rates = [SharedRateLimiter() for _ in range(processes)]
    for rates in all_rates:
        pools.exchange(rates, 0.0)
    return pools, all_rates


SECONDS = st.lists(  # of each: how many calls come to each process, and who reports first
    st.tuples(st.lists(st.integers(0, 12), min_size=6, max_size=6), st.integers(0, 5)),
    max_size=40,
)


@given(SECONDS, st.integers(1, 240), st.integers(1, 6), st.integers(1, 30))
def test_all_together_admit_their_share_a_minutes_worth_and_half_of_one_at_most(
    seconds: list[tuple[list[int], int]], limit: int, processes: int, every: int
) -> None:
    """Calls of any sizes at any processes, whoever reports when; they pause now and then."""
    pools, all_rates = begun(processes)
    allowance = Allowance(requests_per_minute=limit)
    left, left_at_s, now_s = (
        float(limit),
        0.0,
        0.0,
    )  # in the pool, had it one owner; what is above is dropped
    others = (processes - 1) / (2 * processes)
    overshoot = limit * others + limit * LIVE_SHARE_S / MINUTE_S + processes
    for number, (calls, first) in enumerate(seconds):
        now_s += LIVE_SHARE_S * (every if number % 7 == 6 else 1)
        left = min(float(limit), left + limit * (now_s - left_at_s) / MINUTE_S)
        left_at_s = now_s
        for place in range(processes):
            turn = (place + first) % processes
            rates = all_rates[turn]
            for _ in range(calls[turn]):
                left -= rates.admit(*POOL, allowance, 0, now_s).admitted
            pools.exchange(rates, now_s)
            assert left >= -overshoot - 1e-6
    # In the long run nothing is let through twice: the debt is one that the pool has.
    pool = pools.pools.get(POOL)
    if pool is not None and pool.requests is not None:
        assert pool.requests <= limit


@given(
    st.lists(
        st.tuples(st.integers(0, 80), st.integers(0, 300), st.floats(0, 1.5), st.booleans()),
        max_size=60,
    ),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_a_process_that_is_alone_decides_as_one_that_shares_nothing(
    calls: list[tuple[int, int, float, bool]], requests_max: int, tokens_max: int
) -> None:
    pools, (shared,) = begun(1)
    alone = RateLimiter()
    allowance = Allowance(requests_max, tokens_max)
    now_s = 0.0
    for quarters, tokens, share, reports in calls:
        now_s += quarters / 4
        mine = shared.admit(*POOL, allowance, tokens, now_s)
        other = alone.admit(*POOL, allowance, tokens, now_s)
        assert abs(mine.retry_after_s - other.retry_after_s) < 1e-6
        if mine.admitted != other.admitted:  # by a hair, one of them is a billionth short
            assert max(mine.retry_after_s, other.retry_after_s) < 1e-6
            return
        assert mine.reserved_tokens == other.reserved_tokens
        if mine.admitted:
            for rates, decision in ((shared, mine), (alone, other)):
                rates.correct(*POOL, decision, int(share * tokens), now_s)
        if reports:
            pools.exchange(shared, now_s)


@given(st.integers(2, 6), st.integers(1, 240), st.integers(0, 5), st.booleans())
def test_whatever_process_is_asked_the_whole_limit_is_let_through(
    processes: int, limit: int, asked: int, is_spread: bool
) -> None:
    """All calls at one process, or at all in turn: over two minutes the limit is used."""
    pools, all_rates = begun(processes)
    allowance = Allowance(requests_per_minute=limit)
    admitted, calls = 0, limit // 60 + 2
    for second in range(120):
        now_s = float(second)
        for _ in range(calls):
            asked = (asked + is_spread) % processes
            rates = all_rates[asked % processes]
            admitted += rates.admit(*POOL, allowance, 0, now_s).admitted
        for rates in all_rates:
            pools.exchange(rates, now_s)
    share = limit * 119 / MINUTE_S
    assert admitted >= share - processes - 1
    assert admitted <= share + limit * 1.5 + processes


@given(st.integers(2, 5), st.integers(10, 300))
def test_a_call_of_a_whole_minutes_worth_is_let_through_when_the_pool_is_full(
    processes: int, limit: int
) -> None:
    pools, all_rates = begun(processes)
    allowance = Allowance(tokens_per_minute=limit)
    now_s, tries = 0.0, 0
    while not (answer := all_rates[0].admit(*POOL, allowance, limit, now_s)).admitted:
        tries += 1
        assert tries <= 3
        now_s += answer.retry_after_s
        for rates in all_rates:
            pools.exchange(rates, now_s)
    assert now_s <= 2 * LIVE_SHARE_S


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 60)), max_size=60),
    st.integers(20, 200),
)
def test_what_is_given_back_is_there_again_and_what_is_owed_is_paid(
    calls: list[tuple[int, int, int]], limit: int
) -> None:
    """When all calls have ended and all processes have reported, the pool knows the sum."""
    pools, all_rates = begun(3)
    allowance = Allowance(tokens_per_minute=limit)
    spent, refunded, now_s = 0, 0, 0.0
    for place, tokens, used in calls:
        rates = all_rates[place]
        decision = rates.admit(*POOL, allowance, tokens, now_s)
        pools.exchange(all_rates[(place + 1) % 3], now_s)
        pools.exchange(rates, now_s)  # while the call runs
        if decision.admitted:
            rates.correct(*POOL, decision, used, now_s)
            spent += used
            refunded += max(0, decision.reserved_tokens - used)
    for rates in all_rates:
        pools.give_back(rates, now_s)
    if POOL in pools.pools:
        left = pools.pools[POOL].tokens
        assert left is not None
        assert max(-10.0 * limit, limit - spent) - 1e-6 <= left
        # A pool is never fuller than full: what came back while it was is gone.
        assert left <= limit - spent + refunded + 1e-6
