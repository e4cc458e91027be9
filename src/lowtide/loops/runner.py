"""The endless part of every loop, written once: wait, tick, back off after a failure, wake early.

`Loops` owns one TaskGroup and thereby every task of the process. A loop that fails is logged (how
often, core/reporting/failures.py says) and tried again; nothing a loop does can end the others.
Called by wiring alone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

import structlog

from lowtide import limits
from lowtide.core.reporting.failures import Failures
from lowtide.ports.blobs import BlobError
from lowtide.ports.clock import Clock
from lowtide.ports.store import StoreError
from lowtide.ports.turns import ACTING_FOR

log = structlog.get_logger(__name__)


class Loop(Protocol):
    """One loop of a process."""

    @property
    def name(self) -> str: ...

    async def tick(self, now: datetime) -> datetime | None:
        """Does what is due. Returns when to be called again; None means only when woken."""


class _Runner:
    def __init__(self, loop: Loop, clock: Clock, failure_lines: Failures) -> None:
        self._loop = loop
        self._clock = clock
        self._failure_lines = failure_lines
        self._woken = asyncio.Event()
        self._failures = 0
        self._finishing = False

    def wake(self) -> None:
        self._woken.set()

    def finish(self) -> None:
        self._finishing = True
        self._woken.set()

    async def run(self) -> None:
        ACTING_FOR.set(self._loop.name)
        while not self._finishing:
            due = await self._tick()
            await self._wait(due)

    async def _tick(self) -> float | None:
        """Seconds until the next tick is due."""
        self._woken.clear()
        try:
            again_at = await self._loop.tick(self._clock.now())
        except Exception as error:  # the loop runner: one of the two places where this stands
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Giving back what it had leased failed on the way out, and that error hides the
                # cancellation: to go on now would keep the process alive for ever.
                raise asyncio.CancelledError from error
            self._failures += 1
            delay_s = min(limits.LOOP_BACKOFF_S_MAX, 0.1 * 2.0 ** min(self._failures, 16))
            self._tell_failure(error, delay_s)
            await self._clock.sleep(delay_s)
            return 0.0
        if self._failures:
            self._failures = 0
            self._tell_recovery()
        if again_at is None:
            return None
        return max(0.0, (again_at - self._clock.now()).total_seconds())

    def _tell_failure(self, error: Exception, delay_s: float) -> None:
        kind = _kind_of(error, self._loop.name)
        line = self._failure_lines.failed(self._loop.name, kind, self._clock.monotonic())
        if line is not None:
            log.warning(
                "loop.failed",
                loop=self._loop.name,
                error=f"{type(error).__name__}: {error}",
                retry_in_s=round(delay_s, 1),
                failing=list(line.loops),
                failures=line.failures,
                for_s=round(line.for_s),
                exc_info=line.is_first,
            )

    def _tell_recovery(self) -> None:
        line = self._failure_lines.worked(self._loop.name, self._clock.monotonic())
        if line is not None:
            log.info(
                "loop.recovered",
                after=line.kind,
                loops=list(line.loops),
                failures=line.failures,
                for_s=round(line.for_s),
            )

    async def _wait(self, delay_s: float | None) -> None:
        if delay_s is not None and delay_s <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(delay_s):
                await self._woken.wait()
        except TimeoutError:
            pass


def _kind_of(error: Exception, loop: str) -> str:
    """The kind of a failure. What is shared fails for all loops at once, and is one outage;
    anything else is a loop's own.
    """
    name = type(error).__name__
    return name if isinstance(error, StoreError | BlobError) else f"{name} of {loop}"


class Loops:
    """All loops of a process, started together and ended together."""

    def __init__(self, loops: Sequence[Loop], clock: Clock) -> None:
        failure_lines = Failures()
        self._runners: Mapping[str, _Runner] = {
            loop.name: _Runner(loop, clock, failure_lines) for loop in loops
        }
        self._group = asyncio.TaskGroup()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def wake(self, name: str) -> None:
        """Asks for a tick of that loop soon; a name that does not run here is passed over."""
        runner = self._runners.get(name)
        if runner is not None:
            runner.wake()

    async def finish(self, *names: str, within_s: float) -> None:
        """Lets these loops end the tick under way and do no more. Waits so long for that."""
        for name in names:
            self._runners[name].finish()
        ending = [self._tasks[name] for name in names if name in self._tasks]
        if ending:
            await asyncio.wait(ending, timeout=within_s)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for name, runner in self._runners.items():
            self._tasks[name] = self._group.create_task(runner.run(), name=f"loop {name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks.values():
            task.cancel()
        if isinstance(error, asyncio.CancelledError):
            await self._group.__aexit__(kind, error, trace)
        else:  # an error of the body stays what it is: the group would wrap it
            await self._group.__aexit__(None, None, None)
