"""loops/runner.py: the endless part: waiting, waking, backing off, ending."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import structlog

from lowtide import limits
from lowtide.loops.runner import Loops
from lowtide.ports.store import StoreUnavailable
from lowtide.ports.turns import ACTING_FOR
from testkit.manual_clock import ManualClock
from testkit.patience import PATIENCE_S


class Counting:
    """A loop that counts its ticks and does what it is told in them."""

    def __init__(self, name: str, behave: Callable[[int, datetime], datetime | None]) -> None:
        self.name = name
        self.ticks = 0
        self.at: list[datetime] = []
        self._behave = behave
        self._ticked = asyncio.Condition()

    async def tick(self, now: datetime) -> datetime | None:
        async with self._ticked:
            self.ticks += 1
            self.at.append(now)
            self._ticked.notify_all()
        return self._behave(self.ticks, now)

    async def saw(self, ticks: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self._ticked:
            await self._ticked.wait_for(lambda: self.ticks >= ticks)


def _only_when_woken(_: int, __: datetime) -> None:
    return None


async def _until_asleep(clock: ManualClock) -> float:
    async with asyncio.timeout(PATIENCE_S):
        while clock.next_due_s is None:  # noqa: ASYNC110  the clock has no events
            await asyncio.sleep(0)
    due_s = clock.next_due_s
    assert due_s is not None
    return due_s


async def test_a_loop_ticks_at_the_start_and_then_when_it_is_woken() -> None:
    loop = Counting("a", _only_when_woken)
    async with Loops([loop], ManualClock()) as loops:
        await loop.saw(1)
        for ticks in (2, 3):
            loops.wake("a")
            await loop.saw(ticks)
        assert loop.ticks == 3


async def test_a_wake_during_a_tick_is_not_lost() -> None:
    loops: Loops

    def behave(ticks: int, _: datetime) -> None:
        if ticks < 50:
            loops.wake("a")

    loop = Counting("a", behave)
    async with Loops([loop], ManualClock()) as loops:
        await loop.saw(50)


async def test_many_wakes_before_a_tick_are_one() -> None:
    loop = Counting("a", _only_when_woken)
    async with Loops([loop], ManualClock()) as loops:
        await loop.saw(1)
        for _ in range(100):
            loops.wake("a")
        await loop.saw(2)
        for _ in range(10):
            await asyncio.sleep(0)
        assert loop.ticks == 2


async def test_a_loop_that_is_due_ticks_again_without_being_woken() -> None:
    loop = Counting("a", lambda ticks, now: now if ticks < 5 else None)
    async with Loops([loop], ManualClock()):
        await loop.saw(5)


async def test_a_loop_that_is_due_soon_ticks_then() -> None:
    soon = timedelta(milliseconds=5)
    loop = Counting("a", lambda ticks, now: now + soon if ticks < 3 else None)
    async with Loops([loop], ManualClock()):
        await loop.saw(3)


async def test_a_failing_loop_backs_off_further_and_further_up_to_the_bound() -> None:
    clock = ManualClock()

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    loop = Counting("a", fail)
    async with Loops([loop], clock) as loops:
        waits = []
        for ticks in range(1, 10):
            await loop.saw(ticks)
            waits.append(await _until_asleep(clock))
            loops.wake("a")  # does not cut the back-off short
            clock.advance(waits[-1])
    assert waits == pytest.approx(sorted(waits))
    assert waits[:2] == pytest.approx([0.2, 0.4])
    assert waits[-1] == pytest.approx(limits.LOOP_BACKOFF_S_MAX)
    assert waits[-1] < limits.LEASE_TTL_S / 3


async def test_a_success_ends_the_back_off() -> None:
    clock = ManualClock()

    def behave(ticks: int, now: datetime) -> datetime:
        if ticks != 3:
            raise RuntimeError("no")
        return now

    loop = Counting("a", behave)
    async with Loops([loop], clock):
        waits = []
        for ticks in (1, 2, 4):
            await loop.saw(ticks)
            waits.append(await _until_asleep(clock))
            clock.advance(waits[-1])
    assert waits == pytest.approx([0.2, 0.4, 0.2])


async def test_a_failing_loop_does_not_end_the_others() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    bad, good = Counting("bad", fail), Counting("good", _only_when_woken)
    async with Loops([bad, good], ManualClock()) as loops:
        await bad.saw(1)
        await good.saw(1)
        loops.wake("good")
        await good.saw(2)


async def test_a_name_that_does_not_run_here_is_passed_over() -> None:
    async with Loops([], ManualClock()) as loops:
        loops.wake("validate")


async def test_leaving_ends_every_task_also_one_in_the_middle_of_a_tick() -> None:
    class Stuck(Counting):
        async def tick(self, now: datetime) -> None:
            await super().tick(now)
            await asyncio.get_running_loop().create_future()

    stuck, idle = Stuck("stuck", _only_when_woken), Counting("idle", _only_when_woken)
    async with Loops([stuck, idle], ManualClock()):
        await stuck.saw(1)
        await idle.saw(1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_of_the_body_comes_out_as_it_is_when_the_tasks_have_ended() -> None:
    loop = Counting("a", _only_when_woken)
    with pytest.raises(KeyError, match="mine"):
        async with Loops([loop], ManualClock()):
            await loop.saw(1)
            raise KeyError("mine")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_body_ends_the_tasks_and_stays_cancelled() -> None:
    loop = Counting("a", _only_when_woken)

    async def body() -> None:
        async with Loops([loop], ManualClock()):
            await asyncio.get_running_loop().create_future()

    running = asyncio.create_task(body())
    await loop.saw(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_tick_that_fails_while_it_is_cancelled_does_not_keep_the_process_alive() -> None:
    """Its lease could not be given back: the database was locked (simulator, seed 1273)."""
    begun = asyncio.Event()

    class Leaving:
        name = "leaving"

        async def tick(self, _now: datetime) -> datetime | None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise StoreUnavailable("locked") from None
            return None

    async with asyncio.timeout(PATIENCE_S):
        async with Loops([Leaving()], ManualClock()):
            await begun.wait()


async def test_a_loop_that_is_to_finish_ends_its_tick_and_does_no_other() -> None:
    clock, going = ManualClock(), asyncio.Event()

    class Working(Counting):
        async def tick(self, now: datetime) -> datetime | None:
            await super().tick(now)
            await going.wait()
            return now

    working, idle = Working("working", _only_when_woken), Counting("idle", _only_when_woken)
    other = Counting("other", _only_when_woken)
    async with Loops([working, idle, other], clock) as loops:
        for loop in (working, idle, other):
            await loop.saw(1)
        finishing = asyncio.create_task(loops.finish("working", "idle", within_s=PATIENCE_S))
        await asyncio.sleep(0)
        for loop in (working, idle, other):
            loops.wake(loop.name)
        await other.saw(2)
        assert not finishing.done(), "a tick is under way"
        going.set()
        await finishing
    assert (working.ticks, idle.ticks) == (1, 1)


async def test_a_tick_that_does_not_end_is_waited_for_no_longer_than_said() -> None:
    class Stuck(Counting):
        async def tick(self, now: datetime) -> datetime | None:
            await super().tick(now)
            await asyncio.Event().wait()
            return now

    stuck = Stuck("a", _only_when_woken)
    async with Loops([stuck], ManualClock()) as loops:
        await stuck.saw(1)
        async with asyncio.timeout(PATIENCE_S):
            await loops.finish("a", within_s=0.01)


async def test_loops_that_fail_together_are_told_in_one_line_and_so_is_that_they_work_again() -> (
    None
):
    clock = ManualClock()
    away = True

    def behave(_: int, __: datetime) -> None:
        if away:
            raise StoreUnavailable("the database is away")

    loops = [Counting(name, behave) for name in ("a", "b", "c")]
    with structlog.testing.capture_logs() as lines:
        async with Loops(loops, clock):
            for ticks in range(1, 20):
                for loop in loops:
                    await loop.saw(ticks)
                away = ticks < 19
                clock.advance(await _until_asleep(clock))
            for loop in loops:
                await loop.saw(20)
            for _ in range(10):
                await asyncio.sleep(0)
    assert [line["event"] for line in lines] == ["loop.failed", "loop.recovered"]
    assert lines[0]["error"] == "StoreUnavailable: the database is away"
    assert lines[1]["loops"] == ["a", "b", "c"]
    assert lines[1]["failures"] == 3 * 19


async def test_what_a_loop_does_is_done_on_its_own_behalf() -> None:
    names: list[str] = []
    loops = [
        Counting(name, lambda *_: names.append(ACTING_FOR.get()))  # type: ignore[func-returns-value]
        for name in "ab"
    ]
    async with Loops(loops, ManualClock()):
        for loop in loops:
            await loop.saw(1)
    assert sorted(names) == ["a", "b"]
    assert ACTING_FOR.get() == ""
