"""Engines as queueing models in virtual time, worked on through the real dispatch core.

A model says how fast the call at each place of its queue proceeds while so many are there; the run
below gives it all calls that the core takes, ends them when their work is done or their time is up,
and hands the outcomes back. Seconds are virtual, and every run is the same as the last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lowtide.core.capacity.latency_window import LatencyWindow
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.dispatch.verdict import Finish
from lowtide.core.faults.outcome import Failed, Outcome, Succeeded, Throttled
from lowtide.core.usage import Usage
from tests.unit.core.dispatch import dispatch_cases

Speed = Callable[[int, int], float]
"""(place in the queue, calls in it): work per second of the call at that place."""


def servers(count: int) -> Speed:
    """So many slots; who finds none free waits in order of arrival. One slot: Ollama on a CPU."""
    return lambda place, _: 1.0 if place < count else 0.0


def shared(_: int, calls: int) -> float:
    """All calls share one processor evenly."""
    return 1.0 / calls


def batching(cost: float) -> Speed:
    """Steps that compute all calls together and take longer by `cost` for each one more."""
    return lambda _, calls: 1.0 / (1.0 + cost * (calls - 1))


def unlimited(_place: int, _calls: int) -> float:
    """A hosted service: company is not felt."""
    return 1.0


def loading(_place: int, _calls: int) -> float:
    """Computes nothing, as it reads its model first."""
    return 0.0


@dataclass
class Call:
    request: Request
    sent_at_s: float
    left: float


@dataclass
class Run:
    """`widths`: (seconds, window) at each change; `lost`: requests that went to the error file."""

    took_s: float = 0.0
    calls: int = 0
    timeouts: int = 0
    refusals: int = 0
    lost: list[int] = field(default_factory=list)
    widths: list[tuple[float, int]] = field(default_factory=list)

    @property
    def window(self) -> int:
        return self.widths[-1][1]

    @property
    def widest(self) -> int:
        return max(width for _, width in self.widths)

    def first_s(self, width: int) -> float:
        """When the window was that wide for the first time."""
        return next(at_s for at_s, seen in self.widths if seen >= width)


class Engine:
    """`sizes` are the seconds that each line takes alone, over and over. `tells`: whether answers
    report their tokens. More than `room` calls at once are refused with 429. `then`: from that
    second on it is another engine.
    """

    def __init__(
        self,
        speed: Speed,
        sizes: Sequence[float] = (1.0,),
        *,
        timeout_s: float = 600.0,
        tells: bool = True,
        room: int | None = None,
        then: tuple[float, Speed] | None = None,
        window: int = 64,
    ) -> None:
        self.speed = speed
        self.then = then
        self.sizes = sizes
        self.timeout_s = timeout_s
        self.tells = tells
        self.room = room
        self.learned = LatencyWindow(window, timeout_s=timeout_s)
        self.replica = Replica("http://a", frozenset({"m"}), window, learned=self.learned)
        self.core = Dispatch()
        self.now_s = 0.0
        self.run = Run()
        self.queue: list[Call] = []

    def work(self, lines: int) -> Run:
        """Until every line is settled."""
        dispatch_cases.add(self.core, lines)
        left = lines
        while left:
            self._send()
            speeds = self._speeds()
            at_s = self._next_s(speeds)
            for call, speed in zip(self.queue, speeds, strict=True):
                call.left -= speed * (at_s - self.now_s)
            self.now_s = at_s
            over = [c for c in self.queue if c.left <= 1e-9 or self._is_late(c)]
            for call in over:
                self.queue.remove(call)
                left -= self._settle(call.request, self._outcome(call))
                self._send()
        self.run.took_s = self.now_s
        return self.run

    def _size(self, request: Request) -> float:
        return self.sizes[request.index % len(self.sizes)]

    def _is_late(self, call: Call) -> bool:
        return self.now_s - call.sent_at_s >= self.timeout_s - 1e-9

    def _speeds(self) -> list[float]:
        speed = self.speed
        if self.then is not None and self.now_s >= self.then[0]:
            speed = self.then[1]
        calls = len(self.queue)
        return [speed(place, calls) for place in range(calls)]

    def _next_s(self, speeds: Sequence[float]) -> float:
        """The next end of a call, time-out or retry, or when the engine changes."""
        pairs = zip(self.queue, speeds, strict=True)
        times = [self.now_s + call.left / speed for call, speed in pairs if speed > 0]
        times += [call.sent_at_s + self.timeout_s for call in self.queue]
        wake_s = self.core.next_wake_s([self.replica], self.now_s)
        times += [wake_s] if wake_s is not None else []
        if self.then is not None and self.then[0] > self.now_s:
            times.append(self.then[0])
        return min(times)

    def _send(self) -> None:
        if not self.run.widths or self.run.window != self.replica.places:
            self.run.widths.append((self.now_s, self.replica.places))
        while (scope := self.core.trial(self.replica, self.now_s)) is not None:
            answer = Succeeded(200, b"{}", Usage())  # one token comes soon, whatever else runs
            self.core.trial_ended(self.replica, scope, answer, self.now_s)
        while (request := self.core.take(self.replica, self.now_s)) is not None:
            if self.room is not None and len(self.queue) >= self.room:
                self.run.refusals += 1
                self._settle(request, Throttled("429"))
            else:
                self.run.calls += 1
                self.queue.append(Call(request, self.now_s, self._size(request)))

    def _outcome(self, call: Call) -> Outcome:
        if call.left <= 1e-9:
            tokens = int(100 * self._size(call.request)) if self.tells else 0
            return Succeeded(200, b"{}", Usage(output_tokens=tokens))
        self.run.timeouts += 1
        return Failed("timeout", "late")

    def _settle(self, request: Request, outcome: Outcome) -> int:
        decision = self.core.settle(request, self.replica, outcome, self.now_s, 0.5)
        if not isinstance(decision, Finish):
            return 0
        if not isinstance(decision.outcome, Succeeded):
            self.run.lost.append(request.line)
        return 1
