"""The rules that others use, as their sources say (scheduling.md section 1.3 names versions).

Each is written to be as good as its source allows: signals are exact and never stale.
"""

import math
from collections import deque
from collections.abc import Sequence

from bench.live_traffic.gateway import Rule
from lowtide.engine_sim.engine import SimEngine
from lowtide.engine_sim.state.requests import SimRequest


class NoBatch(Rule):
    """(a) Live traffic alone."""

    def allowed(self, now: float, in_flight: int) -> int:
        return 0


class Fixed(Rule):
    """(b) A constant number of calls; (c) vLLM run-batch's is max(1024, 2 * max_num_seqs)."""

    def __init__(self, window: int, *, priority: int = 0) -> None:
        self.window = window
        self.priority = priority

    def allowed(self, now: float, in_flight: int) -> int:
        return self.window


class Gradient2(Rule):
    """(d) Netflix concurrency-limits' Gradient2 over whole calls, with its defaults."""

    TOLERANCE, SMOOTHING, QUEUE, LEAST, MOST, LONG = 1.5, 0.2, 4, 20, 200, 600

    def __init__(self) -> None:
        self._limit = float(self.LEAST)
        self._long = 0.0
        self._warm_up: list[float] = []
        self._in_flight = 0

    def allowed(self, now: float, in_flight: int) -> int:
        self._in_flight = in_flight
        return int(self._limit)

    def finished(self, request: SimRequest, now: float) -> None:
        if request.interactive:
            return
        short = now - request.arrived_at
        if len(self._warm_up) < 10:
            self._warm_up.append(short)
            self._long = sum(self._warm_up) / len(self._warm_up)
        else:
            self._long += (short - self._long) * 2 / (self.LONG + 1)
        if self._long / short > 2:
            self._long *= 0.95
        if self._in_flight < self._limit / 2:
            return
        gradient = max(0.5, min(1.0, self.TOLERANCE * self._long / short))
        wanted = self._limit * gradient + self.QUEUE
        smooth = self._limit * (1 - self.SMOOTHING) + wanted * self.SMOOTHING
        self._limit = max(self.LEAST, min(self.MOST, smooth))


class NightOnly(Rule):
    """(e) A large window in the quiet half of the day and nothing in the other."""

    def __init__(self, window: int, day_s: float) -> None:
        self._window, self._day_s = window, day_s

    def allowed(self, now: float, in_flight: int) -> int:
        at = now % self._day_s / self._day_s
        return self._window if at < 0.25 or at >= 0.75 else 0


class BudgetGate(Rule):
    """(f) llm-d's dispatch budget: 1 - running / max_concurrency with a floor, read every 5 s.

    The pool's capacity is a count of requests; its queue, when there is one, decides first.
    """

    CAPACITY, FLOOR, CACHE_S = 100, 0.1, 5.0

    def __init__(self) -> None:
        self._allowed = 0
        self._read_at = -math.inf

    def allowed(self, now: float, in_flight: int) -> int:
        return self._allowed

    def poll(
        self, engine: SimEngine, own: Sequence[SimRequest], now: float
    ) -> Sequence[SimRequest]:
        if now - self._read_at >= self.CACHE_S:
            self._read_at = now
            load = engine.waiting or engine.running
            budget = 1.0 - load / self.CAPACITY
            more = math.floor(self.CAPACITY * (budget - self.FLOOR)) if budget > self.FLOOR else 0
            self._allowed = len(own) + more if more else 0
        return ()


class AibrixAimd(Rule):
    """(g) AIBrix' client: up while calls are healthy, down by a fifth when TTFT or TPOT is slow."""

    HEALTHY, UP, SLOW = 8, 1.25, 0.8
    TTFT_TARGET_S, TPOT_TARGET_S, TTFT_SLACK, TPOT_SLACK, OVER_USUAL = 1.0, 0.05, 1.5, 1.3, 1.75

    def __init__(self) -> None:
        self._limit = 8.0
        self._probing = True
        self._recent: deque[bool] = deque(maxlen=self.HEALTHY)
        self._usual_ttft = self._usual_tpot = 0.0

    def allowed(self, now: float, in_flight: int) -> int:
        return max(1, int(self._limit))

    def finished(self, request: SimRequest, now: float) -> None:
        if request.interactive or request.first_token_at is None:
            return
        ttft = request.first_token_at - request.arrived_at
        tpot = (now - request.first_token_at) / max(1, request.output_tokens - 1)
        slow = (
            ttft > self.TTFT_SLACK * self.TTFT_TARGET_S
            or tpot > self.TPOT_SLACK * self.TPOT_TARGET_S
            or (self._usual_ttft > 0 and ttft > self.OVER_USUAL * max(self._usual_ttft, 0.2))
        )
        self._usual_ttft += 0.1 * (ttft - self._usual_ttft)
        self._usual_tpot += 0.1 * (tpot - self._usual_tpot)
        self._recent.append(not slow)
        if slow:
            self._limit = max(1.0, self._limit * self.SLOW)
            self._probing = False
            self._recent.clear()
        elif len(self._recent) == self.HEALTHY:
            self._limit = self._limit * self.UP if self._probing else self._limit + 1
            self._recent.clear()
