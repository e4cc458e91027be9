"""Latency histograms of a simulated engine, with vLLM's edges, and their text for Prometheus."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from lowtide.engine_sim.engine import StepEvents
from lowtide.engine_sim.state.requests import SimRequest

TTFT_EDGES: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
ITL_EDGES: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
REQUEST_EDGES: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
TOKEN_EDGES: Final = tuple(float(edge) for edge in (1, *(2**n for n in range(3, 15))))


class Histogram:
    """Counts by bucket; an observation may stand for many equal ones."""

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.edges, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        return sum(self.counts)

    def lines(self, name: str, labels: str) -> list[str]:
        """`labels` without braces, at least one."""
        lines, total = [f"# TYPE {name} histogram"], 0
        edges = [*(str(float(edge)) for edge in self.edges), "+Inf"]
        for edge, count in zip(edges, self.counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{edge}"}} {total}')
        return [*lines, f"{name}_count{{{labels}}} {total}", f"{name}_sum{{{labels}}} {self.sum}"]


class Latencies:
    """The latencies of requests, in simulated seconds."""

    def __init__(self) -> None:
        self.time_to_first_token = Histogram(TTFT_EDGES)
        self.inter_token_latency = Histogram(ITL_EDGES)
        self.queue_time = Histogram(REQUEST_EDGES)
        self.prefill_time = Histogram(REQUEST_EDGES)
        self.decode_time = Histogram(REQUEST_EDGES)
        self.e2e = Histogram(REQUEST_EDGES)
        self.iteration_tokens = Histogram(TOKEN_EDGES)

    def observe(self, events: StepEvents) -> None:
        """Records all latencies of one step."""
        now = events.ended_at
        self.iteration_tokens.observe(events.load.tokens)
        if events.load.decodes:
            self.inter_token_latency.observe(events.duration_s, events.load.decodes)
        for request in events.resumed:
            self.inter_token_latency.observe(now - request.stalled_at)
        for request in events.first_tokens:
            self.time_to_first_token.observe(now - request.arrived_at)
        for request in events.finished:
            self._finish(request, now)

    def _finish(self, request: SimRequest, now: float) -> None:
        scheduled = request.scheduled_at if request.scheduled_at is not None else now
        first = request.first_token_at if request.first_token_at is not None else now
        self.queue_time.observe(scheduled - request.arrived_at)
        self.prefill_time.observe(first - scheduled)
        self.decode_time.observe(now - first)
        self.e2e.observe(now - request.arrived_at)
