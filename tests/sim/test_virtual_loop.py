"""Virtual time, and what kill, stop and continue do to a simulated process."""

import asyncio
import itertools
import time
from asyncio import sleep as pass_time  # virtual: nobody waits
from collections.abc import Coroutine
from typing import Any

import pytest

from testkit.sim.loop import Stuck, VirtualLoop, virtual_loop
from testkit.sim.process import PROCESS, Process

DAY_S = 24 * 3600


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return VirtualLoop().run_until_complete(main)


async def visits(log: list[str], gap_s: float) -> None:
    """Notes each step it takes; a clean end notes that, too."""
    try:
        for step in range(4):
            log.append(f"step {step}")
            await pass_time(gap_s)
    finally:
        log.append("cleaned up")


def test_a_day_passes_at_once() -> None:
    async def main() -> float:
        begun = asyncio.get_running_loop().time()
        await pass_time(DAY_S)
        return asyncio.get_running_loop().time() - begun

    begun = time.monotonic()
    assert run(main()) == DAY_S
    assert time.monotonic() - begun < DAY_S / 100


def test_timers_of_one_instant_fire_in_the_order_they_were_set() -> None:
    order: list[int] = []

    async def wait(number: int) -> None:
        await pass_time(1.0)
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*(wait(number) for number in range(20)))

    run(main())
    assert order == list(range(20))


def test_of_a_killed_process_nothing_runs_behind_the_await_it_was_at() -> None:
    log: list[str] = []

    async def main() -> list[str]:
        process = Process("p")
        process.spawn(visits(log, 1.0), "visits")
        await pass_time(1.5)
        process.kill()
        await pass_time(DAY_S)
        seen = list(log)
        await process.terminate(virtual_loop().release)
        return seen

    assert run(main()) == ["step 0", "step 1"]
    assert log[-1] == "cleaned up", "buried, it unwinds and leaves no task behind"


def test_a_process_dies_after_the_steps_that_it_has_left() -> None:
    log: list[str] = []

    async def main() -> list[str]:
        process = Process("p")
        process.doom(3)
        process.spawn(visits(log, 0.0), "visits")
        await pass_time(1.0)
        seen = list(log)
        await process.terminate(virtual_loop().release)
        return seen

    assert run(main()) == ["step 0", "step 1", "step 2"]


def test_a_stopped_process_goes_on_later_where_it_was() -> None:
    log: list[str] = []

    async def main() -> None:
        process = Process("p")
        process.spawn(visits(log, 1.0), "visits")
        await pass_time(0.5)
        virtual_loop().freeze(process, DAY_S)
        await pass_time(DAY_S - 1)
        assert log == ["step 0"]
        await pass_time(10.0)

    run(main())
    assert log == ["step 0", "step 1", "step 2", "step 3", "cleaned up"]


def test_what_a_process_starts_belongs_to_it() -> None:
    async def main() -> None:
        process = Process("p")
        owners: list[Process | None] = []

        async def note() -> None:
            owners.append(PROCESS.get())

        async def parent() -> None:
            await asyncio.gather(note(), asyncio.create_task(note()))

        await process.spawn(parent(), "parent")
        assert owners == [process, process]
        assert PROCESS.get() is None

    run(main())


def test_waiting_for_what_never_comes_is_an_error() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match="nothing is left"):
        run(main())


def test_spinning_without_letting_time_pass_is_an_error() -> None:
    async def main() -> None:
        for _ in itertools.count():
            await pass_time(0)

    with pytest.raises(Stuck, match="without time passing"):
        run(main())
