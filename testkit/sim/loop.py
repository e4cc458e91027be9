"""An event loop whose time jumps to the next timer: no threads, no sockets, no waiting.

Callbacks run in the order in which they were asked for, as in asyncio; those of a stopped process
are kept for later, those of a dead one never run (`process.py`). Invariant: nothing here depends on
the machine, so two runs of one program take the same steps.
"""

import asyncio
import heapq
import itertools
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import Context, copy_context
from typing import Any, cast

from testkit.sim.process import PROCESS, Process

SPIN_STEPS_MAX = 300_000
"""Callbacks at one instant: above this, some task waits for time to pass without letting it."""


class Stuck(Exception):
    """Raised when nothing will ever happen again, or time does not go on."""


class _Step(asyncio.Handle):
    process: Process | None = None


class _Timer(asyncio.TimerHandle):
    process: Process | None = None


class VirtualLoop:
    """The part of `asyncio.AbstractEventLoop` that code without sockets needs."""

    def __init__(self) -> None:
        self._as_loop = cast("asyncio.AbstractEventLoop", self)
        self._now_s = 0.0
        self._ready: deque[_Step | _Timer] = deque()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()
        self._spun = 0
        self.steps = 0
        self._running: _Step | _Timer | None = None
        self.unhandled: list[str] = []

    def run_until_complete(self, future: Any) -> Any:
        main = asyncio.ensure_future(future, loop=self._as_loop)
        self._spun = 0
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._end_generator)
        events._set_running_loop(self._as_loop)
        try:
            while not main.done():
                self._turn()
        finally:
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
        return main.result()

    def _turn(self) -> None:
        """Run what is ready; when nothing is, it becomes the time of the next timer."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not self._ready:
            if not timers:
                raise Stuck("nothing is left to wait for")
            if timers[0][0] > self._now_s:
                self._now_s, self._spun = timers[0][0], 0
        while timers and timers[0][0] <= self._now_s:
            self._ready.append(heapq.heappop(timers)[2])
        for _ in range(len(self._ready)):
            self._run(self._ready.popleft())
        if self._spun > SPIN_STEPS_MAX:
            raise Stuck(f"{self._spun} steps without time passing")

    def _run(self, handle: _Step | _Timer) -> None:
        if handle.cancelled():
            return
        process = handle.process
        if process is not None and not process.runs:
            process.withheld.append(handle)
            return
        self.steps += 1
        self._spun += 1
        self._running = handle
        handle._run()
        if process is not None:
            process.step()

    def task_of_step(self) -> asyncio.Task[Any] | None:
        """The task whose step runs or has just run; None when that was a bare callback."""
        owner = getattr(getattr(self._running, "_callback", None), "__self__", None)
        return owner if isinstance(owner, asyncio.Task) else None

    def _end_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        self.create_task(generator.aclose())

    def freeze(self, process: Process, seconds: float) -> None:
        """Withholds a process's callbacks (SIGSTOP), and releases them after so long (SIGCONT)."""
        process.stopped = True
        self.call_later(seconds, self.thaw, process, context=Context())  # nobody's, so it runs

    def thaw(self, process: Process) -> None:
        """Runs what was withheld now (SIGCONT)."""
        process.stopped = False
        self.release(process)

    def release(self, process: Process) -> None:
        """Run what was withheld from a process that runs again."""
        self._ready.extend(process.withheld)  # type: ignore[arg-type]
        process.withheld.clear()

    # -- what asyncio asks of a loop

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = copy_context() if context is None else context
        handle = _Step(callback, args, self._as_loop, context)
        handle.process = context.get(PROCESS)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        timer = _Timer(when, callback, args, self._as_loop, context)
        timer.process = context.get(PROCESS)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._as_loop)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self._as_loop, name=name, context=context)
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            process.adopt(task)
        return task

    def run_in_executor(
        self, _executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Runs the function at once: a thread would bring chance into the run."""
        future = self.create_future()
        future.set_result(func(*args))
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.unhandled.append(f"{context.get('message')}: {error!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are passed over when their time comes."""


def virtual_loop() -> VirtualLoop:
    """The loop that runs this."""
    return cast("VirtualLoop", asyncio.get_running_loop())
