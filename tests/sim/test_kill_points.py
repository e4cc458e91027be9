"""The simulator knows at which await of the product a process was killed."""

import asyncio
import re
from asyncio import sleep as pass_time  # virtual: nobody waits
from datetime import datetime

from lowtide.loops.runner import Loops
from testkit.sim.kill_points import runs_at, waits_at
from testkit.sim.loop import VirtualLoop, virtual_loop
from testkit.sim.node import SimClock
from testkit.sim.process import Process


class Waiting:
    """A loop of ours for the product's runner; it notes what its tick sees."""

    name = "waiting"

    def __init__(self) -> None:
        self.seen: str | None = None

    async def tick(self, now: datetime) -> datetime | None:
        self.seen = runs_at()
        await pass_time(3600.0)
        return None


async def main() -> tuple[str | None, str | None]:
    waiting, process = Waiting(), Process("p")
    reported: list[str | None] = []

    async def live() -> None:
        async with Loops([waiting], SimClock(process)):
            await asyncio.get_running_loop().create_future()

    def tell() -> None:
        task = virtual_loop().task_of_step()
        reported.append(waits_at(task) if task else None)

    process.doom(2, tell)  # the start of `live`, and the first step of the loop's task
    process.spawn(live(), "live")
    await pass_time(1.0)
    assert not process.alive
    await process.terminate(virtual_loop().release)
    return waiting.seen, reported[0]


def test_the_await_is_named_by_the_innermost_line_of_the_product() -> None:
    ran, died = VirtualLoop().run_until_complete(main())
    for site in (ran, died):
        assert site is not None
        assert re.fullmatch(r"loops/runner\.py:\d+", site)
