"""One piece of work in a process that dies after so many steps: so that each step can be the last.

Tests play the same work again and again, one step longer each time, until it comes to its end; what
a second process then finds is what a kill at that step left behind.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from lowtide.store.sql_store import SqlStore
from testkit.sim import inline_sqlite
from testkit.sim.kill_points import waits_at
from testkit.sim.loop import virtual_loop
from testkit.sim.process import Process
from testkit.sim.stores import Stores

STEPS_MAX: Final = 2_000
"""More than any such work takes: a run that needs more has gone astray."""
Work = Callable[[SqlStore, Process], Awaitable[None]]


class Killed:
    """What one run came to: where the process died, None where it came to its end."""

    def __init__(self) -> None:
        self.died_at: str | None = None
        self.ended = False


async def live(work: Work, store: SqlStore, steps: int | None) -> Killed:
    """Do `work` in a process that dies after so many steps."""
    process, killed = Process("p"), Killed()
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end() -> None:
        if not gone.done():
            gone.set_result(None)

    def tell() -> None:
        task = virtual_loop().task_of_step()
        killed.died_at = (waits_at(task) if task else None) or "elsewhere"

    async def main() -> None:
        await work(store, process)
        killed.ended = True
        end()

    process.on_death.append(end)
    if steps is not None:
        process.doom(steps, tell)
    process.spawn(main(), "work")
    await gone
    await process.terminate(virtual_loop().release)
    return killed


def fresh_database(stores: Stores) -> str:
    """An empty database where `stores` has its own; its path."""
    stores.renew()
    path = str(stores.path)
    inline_sqlite.gates[path] = lambda _moment, _statement: None
    return path
