"""The faults that are injected into a world from outside: kills, pauses, outages, wrong clocks,
engines up and down.

One event after another, at gaps drawn from the seed, until the chaos is over; `clear` then sets
everything right, and from there on all work must end.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from testkit.sim.engines import EngineMachine
from testkit.sim.fault_kinds import FaultKind
from testkit.sim.faults import Outage, PortFaults
from testkit.sim.kill_points import waits_at
from testkit.sim.loop import virtual_loop
from testkit.sim.node import Node
from testkit.sim.scenario import Scenario
from testkit.sim.trace import Trace

_CLOCK_JUMP_S = (0.5, 5.0, 60.0)
_CLOCK_LEAP_S = 250.0
"""How far a worker's clock leaps: longer than anything is kept that no row names, in a scaled world
(scenario.py). An API's leap would let a repeated create be another intention
(REPEATED_POST_WINDOW_S).
"""
_STEPS_LEFT_MAX = 500
STORM_MAX = 3


class FaultInjection:
    """`nodes` gives the processes that live at this moment."""

    def __init__(
        self,
        scenario: Scenario,
        nodes: Callable[[], Sequence[Node]],
        engines: Sequence[EngineMachine],
        faults: PortFaults,
        trace: Trace,
    ) -> None:
        self._scenario = scenario
        self._nodes = nodes
        self._engines = engines
        self._faults = faults
        self._trace = trace
        self._random = Random(f"storm {scenario.seed}")
        self.clocks_off_s = 0.0
        """The largest error of a clock so far: by so much may a dead worker's lease last longer."""
        self._lull_s = 0.0
        """Added to the next gap: so that others live long enough to take a sleeper's work over."""
        kinds = [
            self._kill,
            self._kill_between_steps,
            self._terminate,
            self._pause,
            self._outage,
            self._jump_clock,
            self._stop_engine,
            self._change_engine,
        ]
        self._kinds = self._random.sample(kinds, self._random.randint(2, len(kinds)))
        self._kinds += self._random.choice([[self._pause] * 2, [self._kill_between_steps]])

    async def inject_faults(self, enough: Callable[[], bool]) -> None:
        """Injects faults for `chaos_s`, and on until `enough`, within bounds."""
        self._trace.note("the storm begins")
        self._faults.calm = False
        loop, chaos_s = asyncio.get_running_loop(), self._scenario.chaos_s
        begun_s = loop.time()
        while (blown_s := loop.time() - begun_s) < STORM_MAX * chaos_s:
            if blown_s >= chaos_s and enough():
                break
            gap_s = self._random.expovariate(1 / self._scenario.storm_gap_s)
            await asyncio.sleep(gap_s + self._lull_s)
            self._lull_s = 0.0
            self._random.choice(self._kinds)()
        self.clear()

    def clear(self) -> None:
        """Ends all faults."""
        self._trace.note("the storm is over")
        self._faults.clear()
        for engine in self._engines:
            engine.up, engine.failure_rate = True, 0.0
        for node in self._nodes():
            node.process.spare()
            node.process.skew_s = 0.0
            virtual_loop().thaw(node.process)

    def _one(self) -> Node | None:
        nodes = self._nodes()
        return self._random.choice(nodes) if nodes else None

    def _busy(self) -> Node | None:
        """A process that has calls at an engine; None when there is none."""
        busy = [
            node
            for node in self._nodes()
            if any(engine.is_called_by(node.process) for engine in self._engines)
        ]
        return self._random.choice(busy) if busy else None

    def _kill(self) -> None:
        if (node := self._one()) is not None:
            self._trace.fault(FaultKind.KILLED, node.process.name)
            node.process.kill()

    def _kill_between_steps(self) -> None:
        """Kills a process at any await: steps are what lies between two of them."""
        if (node := self._one()) is not None:
            steps = int(_STEPS_LEFT_MAX ** self._random.random())  # often few: lives are short
            node.process.doom(steps, self._tell_death)

    def _tell_death(self) -> None:
        task = virtual_loop().task_of_step()
        where = waits_at(task) if task is not None else None
        self._trace.fault(FaultKind.KILLED_BETWEEN_STEPS, where or "")
        if where is not None:
            self._trace.deaths.add(where)

    def _terminate(self) -> None:
        if (node := self._one()) is not None:
            self._trace.fault(FaultKind.TERMINATED, node.process.name)
            node.terminate()

    def _pause(self) -> None:
        """Stops a process (SIGSTOP), often past the lease and in the middle of the work, then
        continues it (SIGCONT).
        """
        if (node := self._busy() or self._one()) is None or node.process.stopped:
            return
        seconds = self._scenario.lease_ttl_s * self._random.choice([0.1, 1.5, 4.0, 4.0])
        self._trace.fault(FaultKind.PAUSED, f"{node.process.name} for {seconds:.1f} s")
        virtual_loop().freeze(node.process, seconds)
        self._lull_s = seconds * self._random.choice([0.0, 1.0, 1.0])

    def _outage(self) -> None:
        outages: list[Outage] = ["database", "slow", "blobs", "disk", "disk"]
        self._faults.begin(self._random.choice(outages), self._random.choice([0.3, 3.0, 12.0]))

    def _jump_clock(self) -> None:
        if (node := self._one()) is not None:
            leap = (_CLOCK_LEAP_S,) if not node.serves_http else ()
            jump_s = self._random.choice(_CLOCK_JUMP_S + leap) * self._random.choice([-1, 1])
            node.process.skew_s = jump_s
            self.clocks_off_s = max(self.clocks_off_s, abs(jump_s))
            kind = FaultKind.CLOCK_LEAPT if abs(jump_s) == _CLOCK_LEAP_S else FaultKind.CLOCK_JUMPED
            self._trace.fault(kind, f"{node.process.name} by {jump_s} s")

    def _stop_engine(self) -> None:
        engine = self._random.choice(self._engines)
        engine.stop()
        self._trace.fault(FaultKind.ENGINE_DIED, engine.url)
        seconds = self._random.choice([0.2, 2.0, 20.0])
        asyncio.get_running_loop().call_later(seconds, engine.start)

    def _change_engine(self) -> None:
        self._random.choice(self._engines).failure_rate = self._random.choice([0.0, 0.1, 1.0])
