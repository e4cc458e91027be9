"""The loop that exchanges with other processes, over one database and in virtual time."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from lowtide import limits
from lowtide.core.accounts.rate_limit import Allowance, RateDecision
from lowtide.core.accounts.shared_rates import SharedRateLimiter
from lowtide.loops.live.shared_rates import SharedRatesLoop
from lowtide.ports.store import StoreUnavailable
from lowtide.store.sql_store import SqlStore
from testkit.empty_database import place_empty_database
from testkit.faults import Faulty
from testkit.manual_clock import ManualClock

SIXTY = Allowance(requests_per_minute=60)
WAIT_S = limits.LIVE_SHARE_S


class Process:
    """The rate limits of one process and their loop."""

    def __init__(self, name: str, store: SqlStore, clock: ManualClock) -> None:
        self.rates = SharedRateLimiter()
        self.store = Faulty(store.live_rates, ("exchange", "read", "leave"))
        self.clock = clock
        self.loop = SharedRatesLoop(name, self.rates, self.store, clock)

    async def tick(self) -> None:
        again_at = await self.loop.tick(self.clock.now())
        assert again_at == self.clock.now() + timedelta(seconds=WAIT_S)

    def ask(self, allowance: Allowance = SIXTY, tokens: int = 0) -> RateDecision:
        return self.rates.admit("k", "m", allowance, tokens, self.clock.monotonic())

    def admitted(self, calls: int) -> int:
        return sum(self.ask().admitted for _ in range(calls))


class Several:
    """Processes on one database."""

    def __init__(self, store: SqlStore) -> None:
        self.clock = ManualClock()
        self.store = store
        self.all: list[Process] = []

    async def begin(self, count: int) -> None:
        for number in range(count):
            self.all.append(Process(f"p{number}", self.store, self.clock))
        await self.exchange()
        await self.exchange()  # the first has learned of the last

    async def exchange(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        for process in self.all:
            await process.tick()


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Several]:
    place_empty_database(tmp_path / "lowtide.db")
    store = SqlStore.sqlite(tmp_path / "lowtide.db")
    await store.open()
    yield Several(store)
    await store.aclose()


async def test_the_calls_of_all_processes_count_together(several: Several) -> None:
    await several.begin(3)
    admitted = 0
    for _ in range(90):
        admitted += sum(process.admitted(5) for process in several.all)
        await several.exchange(WAIT_S)
    assert 89 <= admitted <= 89 + 60 * (1 + 2 / 6) + 3


async def test_one_process_may_use_what_the_others_leave(several: Several) -> None:
    await several.begin(3)
    admitted = 0
    for _ in range(90):
        admitted += several.all[0].admitted(5)
        await several.exchange(WAIT_S)
    assert 89 + 40 <= admitted <= 89 + 60 * (1 + 2 / 6) + 3


async def test_a_burst_at_all_processes_is_at_most_a_minutes_worth_and_half_of_one(
    several: Several,
) -> None:
    await several.begin(3)
    admitted = sum(process.admitted(100) for process in several.all)
    assert admitted == 30  # half of it, at once
    for process in several.all:  # nothing fills meanwhile
        await process.tick()
        admitted += process.admitted(100)
    assert 45 <= admitted <= 60 * (1 + 2 / 6) + 3


async def test_a_call_that_a_process_has_no_part_for_is_told_to_come_after_the_next_report(
    several: Several,
) -> None:
    await several.begin(2)
    first = several.all[0]
    while (answer := first.ask()).admitted:
        assert answer.requests is not None
        assert answer.requests.remaining < 60
    assert answer.retry_after_s == WAIT_S
    assert answer.requests is not None
    assert answer.requests.remaining == 0  # here; elsewhere there is more
    await several.exchange(WAIT_S)
    assert first.ask().admitted


async def test_what_others_used_is_told_to_callers(several: Several) -> None:
    await several.begin(2)
    first, second = several.all
    assert first.admitted(10) == 10
    await several.exchange()
    use = second.rates.use("k", ["m", "other"], SIXTY, several.clock.monotonic())
    (found,) = use.values()
    assert found.requests is not None
    assert found.requests.remaining <= 50


async def test_the_part_of_a_process_that_died_comes_back(several: Several) -> None:
    await several.begin(2)
    dead = several.all.pop()
    assert dead.admitted(5) == 5
    await dead.tick()  # and holds half of what is left, for ever
    (left,) = several.all
    admitted = 0
    for _ in range(120):
        admitted += left.admitted(3)
        await several.exchange(WAIT_S)
    # What was held is gone, once; what fills is all there, from the first second on.
    assert 119 <= admitted <= 119 + 60
    several.clock.advance(60)
    await several.exchange()
    assert left.admitted(100) == 60  # alone again: all at once


async def test_a_process_that_stops_gives_back_what_it_holds(several: Several) -> None:
    await several.begin(2)
    first, second = several.all
    assert first.admitted(4) == 4
    await first.tick()
    await first.loop.leave()
    several.all.remove(first)
    await several.exchange()
    assert second.admitted(100) == 56


async def test_while_the_database_is_away_each_process_goes_on_with_its_part(
    several: Several,
) -> None:
    await several.begin(2)
    away = StoreUnavailable("away")
    admitted = [0, 0]
    for process in several.all:
        process.admitted(100)
        await process.tick()
        process.admitted(100)
        process.store.fail("exchange", away, times=1000)
        process.store.fail("read", away, times=1000)
    for _ in range(120):
        several.clock.advance(WAIT_S)
        for number, process in enumerate(several.all):
            with pytest.raises(StoreUnavailable):
                await process.tick()
            admitted[number] += process.admitted(5)
    assert admitted == [60, 60]  # half of what fills in two minutes, each
    for process in several.all:
        process.store.heal()
    await several.exchange()
    assert sum(process.admitted(100) for process in several.all) <= 2


async def test_a_report_whose_answer_was_lost_gives_nothing_back_twice(several: Several) -> None:
    await several.begin(2)
    first, _ = several.all
    assert first.admitted(10) == 10
    await first.tick()
    assert first.admitted(1) == 1
    for _ in range(20):  # written down, but nobody knows
        first.store.fail("exchange", StoreUnavailable("cut"), after=True)
        with pytest.raises(StoreUnavailable):
            await first.tick()
    await first.tick()
    rest = sum(process.admitted(100) for process in several.all)
    for _ in range(10):
        await several.exchange()
        rest += sum(process.admitted(100) for process in several.all)
    assert 11 + rest <= 60 * 1.25 + 2


async def test_without_calls_a_process_only_reads_but_for_its_sign_of_life(
    several: Several,
) -> None:
    await several.begin(1)
    (process,) = several.all
    process.store.calls.clear()
    for _ in range(30):
        await several.exchange(1.0)
    assert process.store.calls == {"exchange": 10, "read": 20}


async def test_tokens_that_a_long_call_did_not_use_come_back_however_late(
    several: Several,
) -> None:
    await several.begin(2)
    first, second = several.all
    hundred = Allowance(tokens_per_minute=100)
    decision = first.ask(hundred, 20)
    assert decision.admitted
    for _ in range(10):  # nothing else comes, and the pool is given back while the call runs
        await several.exchange()
    now_s = several.clock.monotonic()
    first.rates.correct("k", "m", decision, 5, now_s)
    for _ in range(3):
        await several.exchange()
    found = second.rates.use("k", ["m"], hundred, now_s)["m"].tokens
    assert found is not None
    assert found.remaining == 95
