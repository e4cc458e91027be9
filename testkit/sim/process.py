"""A simulated process: what runs in its context, and what kill, stop and continue do to it.

Every callback of the loop belongs to the process in whose context it was made. A killed process
never runs again: nothing behind the await it was at happens, no `finally`, no rollback that it asks
for itself; its database connections close as the kernel would close them. A stopped one (SIGSTOP)
runs on later, from where it was, without having noticed.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, Protocol

PROCESS: ContextVar["Process | None"] = ContextVar("PROCESS", default=None)
"""The process whose code is running; None: the world's own (clients, storm, supervisors)."""


class Closable(Protocol):
    def close(self) -> None: ...


def _nobody() -> None:
    """Does nothing: the default for what is told of a death."""


class Process:
    """One life: a restart is a new one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stopped = False
        self.buried = False
        self.skew_s = 0.0
        """How far its wall clock is ahead."""
        self._steps_to_live: int | None = None
        self._tell_doom: Callable[[], None] = _nobody
        self.connections: list[Closable] = []
        self.on_death: list[Callable[[], None]] = []
        self.withheld: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []

    @property
    def runs(self) -> bool:
        return (self.alive and not self.stopped) or self.buried

    def spawn(self, coroutine: Any, name: str) -> asyncio.Task[Any]:
        """Runs in this process's context, whatever context calls."""
        context = copy_context()
        context.run(PROCESS.set, self)
        return asyncio.get_running_loop().create_task(coroutine, name=name, context=context)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Keep a task: collected as garbage, a dead one would run its `finally` blocks."""
        if len(self._tasks) >= 64 and len(self._tasks) % 64 == 0:
            self._tasks = [t for t in self._tasks if not t.done()]
        self._tasks.append(task)

    def kill(self) -> None:
        """Kills the process now, between two steps."""
        if not self.alive:
            return
        self.alive = False
        for connection in self.connections:
            connection.close()
        self.connections.clear()
        for tell in self.on_death:
            tell()

    def doom(self, steps: int, tell: Callable[[], None] = _nobody) -> None:
        """Kill it after that many further steps: at the await that the last of them comes to.

        `tell` is told when it comes to that.
        """
        self._steps_to_live, self._tell_doom = steps, tell

    def spare(self) -> None:
        """Take `doom` back."""
        self._steps_to_live = None

    def step(self) -> None:
        """Counts one more callback that has run."""
        if self._steps_to_live is not None:
            self._steps_to_live -= 1
            if self._steps_to_live <= 0:
                self._steps_to_live = None
                if self.alive:
                    self._tell_doom()
                self.kill()

    def exit_if_dead(self) -> None:
        """Raises CancelledError in a dead process, at each border to the world: it gets nothing any
        more, it only unwinds.
        """
        if not self.alive:
            raise asyncio.CancelledError

    async def terminate(self, release: Callable[["Process"], None]) -> None:
        """Unwinds what hangs when all is over, so that nothing of it outlives the run."""
        self.kill()
        self.buried = True
        release(self)
        for _ in range(100):
            left = [task for task in self._tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1.0)
        raise AssertionError(f"{self.name} has tasks that cannot be cancelled: {left}")
