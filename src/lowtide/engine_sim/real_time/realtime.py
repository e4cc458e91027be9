"""The simulated engine in real time: one task that takes step after step, each as long as it says.

A step ends when its time is over on the clock and the next one begins at that simulated instant,
so a late wake-up does not slow the engine down; it is counted. A host that is too busy shows as
lateness, and figures from such a run are worth nothing: `Lateness.is_valid` says so.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lowtide.engine_sim.engine import SimEngine, StepEvents
from lowtide.engine_sim.real_time.faults import EngineFaults
from lowtide.engine_sim.real_time.histograms import Latencies
from lowtide.engine_sim.state.requests import SimRequest

LATE_S: Final = 0.005
"""Real seconds by which a step may end late: what timers of a loop cost."""

LATE_SHARE_MAX: Final = 0.02
"""More late steps than this, and the host was too busy."""


@dataclass(slots=True)
class Lateness:
    """How far the clock was ahead when steps were completed, in real seconds."""

    steps: int = 0
    late: int = 0
    worst_s: float = 0.0
    sum_s: float = 0.0

    def note(self, seconds: float) -> None:
        self.steps += 1
        self.late += seconds > LATE_S
        self.worst_s = max(self.worst_s, seconds)
        self.sum_s += max(0.0, seconds)

    @property
    def is_valid(self) -> bool:
        return self.late <= LATE_SHARE_MAX * self.steps

    def as_json(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "late_steps": self.late,
            "late_ms_mean": round(1e3 * self.sum_s / max(1, self.steps), 3),
            "late_ms_max": round(1e3 * self.worst_s, 3),
            "valid": self.is_valid,
        }


class Call:
    """The requests of one HTTP call (several with `n` or a list of prompts)."""

    def __init__(self, requests: Sequence[SimRequest], stream_interval: int | None) -> None:
        """`stream_interval` None: woken only when all have ended."""
        self.requests = requests
        self.changed = asyncio.Event()
        self.is_lost = False
        """The engine dropped it: it crashed, went to sleep, or the client is gone."""
        self.made = [0] * len(requests)
        self.open = len(requests)
        self.stream_interval = stream_interval
        self._sent = [0] * len(requests)

    @property
    def is_over(self) -> bool:
        return self.is_lost or not self.open

    def advance(self, engine: SimEngine) -> None:
        """Records how far the requests are after a step, and wakes the reader if that is due."""
        for index, request in enumerate(self.requests):
            made = self.made[index] = engine.made(request)
            if made - self._sent[index] >= (self.stream_interval or 1) or (
                made and not self._sent[index]
            ):
                self._sent[index] = made
                self.changed.set()

    def finish_one(self) -> None:
        self.open -= 1
        if not self.open:
            self.made = [request.output_tokens for request in self.requests]
            self.changed.set()

    def lose(self) -> None:
        self.is_lost = True
        self.changed.set()


class RealTimeEngine:
    """Belongs to one event loop; `run` is the task to start in it."""

    def __init__(
        self,
        engine: SimEngine,
        faults: EngineFaults,
        *,
        time_scale: float = 1.0,
        on_crash: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_crash` is called when a crash begins."""
        self.engine = engine
        self.faults = faults
        self.latencies = Latencies()
        self.lateness = Lateness()
        self.sleep_level = 0
        self._scale = time_scale
        self._on_crash = on_crash
        self._calls: dict[SimRequest, Call] = {}
        self._streams: dict[Call, None] = {}
        self._work = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()

    def now(self) -> float:
        """Simulated seconds since the start."""
        return (self._loop.time() - self._started_at) * self._scale

    def submit(self, call: Call) -> None:
        """Raises ValueError for a request that can never fit; then none of the call is taken."""
        now = self.now()
        for index, request in enumerate(call.requests):
            try:
                self.engine.submit(request, now)
            except ValueError:
                for earlier in call.requests[:index]:
                    self.engine.abort(earlier.id)
                raise
        self._calls.update((request, call) for request in call.requests)
        if call.stream_interval is not None:
            self._streams[call] = None
        self._work.set()

    def abort(self, call: Call) -> None:
        """Aborts the call's requests: its client has gone."""
        for request in call.requests:
            if self._calls.pop(request, None) is not None:
                self.engine.abort(request.id)
        self._streams.pop(call, None)
        call.lose()

    def sleep(self, level: int) -> None:
        """Puts the engine to sleep: its requests and its cache are lost; what comes now waits."""
        self._lose_all()
        self.sleep_level = level

    async def wake(self, default_s: float) -> None:
        """Wakes the engine, which takes its time."""
        value = self.faults.value("wake", self.now())
        await self._pause_until(self.now() + (default_s if value is None else value))
        self.sleep_level = 0
        self._work.set()

    async def run(self) -> None:
        """Takes step after step for ever."""
        async with asyncio.TaskGroup() as tasks:
            for fault in self.faults.of_kind("crash"):
                tasks.create_task(self._crash_at(fault.start))
            await self._step_for_ever()

    async def _step_for_ever(self) -> None:
        free_at = self.now()
        while True:
            hung = [f.end for f in self.faults.of_kind("hang") if f.is_on(self.now())]
            if hung:
                await self._pause_until(max(hung))
                free_at = self.now()
            begun = None
            if not self.sleep_level:
                self.engine.slowness = self.faults.value("slow", self.now()) or 1.0
                begun = self.engine.begin_step(free_at)
            if begun is None:
                self._work.clear()
                await self._work.wait()
                free_at = self.now()
                continue
            free_at += begun
            await self._pause_until(free_at)
            if self.engine.is_stepping:  # no crash meanwhile
                self._tell(self.engine.end_step())

    def _tell(self, events: StepEvents) -> None:
        self.lateness.note((self.now() - events.ended_at) / self._scale)
        self.latencies.observe(events)
        for call in self._streams:
            call.advance(self.engine)
        for request in events.finished:
            call_of = self._calls.pop(request, None)
            if call_of is not None:
                call_of.finish_one()
                if call_of.is_over:
                    self._streams.pop(call_of, None)

    async def _pause_until(self, instant: float) -> None:
        """Waits until then, and for at least one turn of the loop, so that a late engine does not
        starve other tasks.
        """
        await asyncio.sleep(max(0.0, (instant - self.now()) / self._scale))

    async def _crash_at(self, instant: float) -> None:
        await self._pause_until(instant)
        self._lose_all()
        self._on_crash()

    def _lose_all(self) -> None:
        self.engine.crash()
        calls, self._calls = set(self._calls.values()), {}
        self._streams.clear()
        for call in calls:
            call.lose()
