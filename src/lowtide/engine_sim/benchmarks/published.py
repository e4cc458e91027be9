"""Published throughput of a real engine, and the simulated engine at the same points.

The figures are TensorRT-LLM's performance overview (v1.0, H100, maximum load, output tokens per
second). That engine is not vLLM and its numbers are its best; so is what is compared: the best of
some windows sized from the KV cache. The spread that the profiles reach was found once and is
stated here, so that a change to the engine that moves it is noticed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lowtide.engine_sim.engine import SimEngine
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig
from lowtide.engine_sim.state.requests import SimRequest

LENGTHS: Final = (
    (128, 128), (128, 2048), (128, 4096), (500, 2000), (1000, 1000),
    (1000, 2000), (2048, 128), (2048, 2048), (5000, 500), (20000, 2000),
)  # fmt: skip
"""Prompt and output tokens."""

PUBLISHED: Final = {
    "8b-fp8-h100": (28_312, 22_714, 14_325, 17_660, 15_220, 13_899, 3_450, 9_305, 3_459, 1_351),
    "70b-fp8-tp2-h100": (6_378, 6_651, 4_199, 5_222, 4_205, 4_146, 762, 3_082, 898, 437),
}
"""Output tokens per second, in the order of LENGTHS."""

SPREAD: Final = {"8b-fp8-h100": (0.89, 1.03, 0.95), "70b-fp8-tp2-h100": (0.94, 1.06, 1.01)}
"""Least, greatest and geometric mean of simulated / published (scheduling.md section 4.3)."""

TOLERANCE: Final = 0.05
"""The relative tolerance on each of the three: short runs have a larger share of
warm-up and drain.
"""

SHARES_OF_KV: Final = (0.7, 0.92, 1.0, 1.2)
"""Windows to try, as shares of what fits the KV cache on average."""

CONFIG: Final = SchedulerConfig(max_num_seqs=2048, max_num_batched_tokens=8192)


@dataclass(frozen=True, slots=True)
class Point:
    """One published figure beside the simulated one."""

    profile: str
    prompt: int
    output: int
    published: float
    simulated: float
    window: int
    preemptions: int

    @property
    def ratio(self) -> float:
        return self.simulated / self.published


def simulate(
    profile: str, prompt: int, output: int, window: int, requests: int
) -> tuple[float, int]:
    """Output tokens per second of equal requests, and preemptions."""
    engine = SimEngine(PROFILES[profile], CONFIG)
    now, sent = 0.0, 0
    for _ in range(min(window, requests)):
        engine.submit(SimRequest(sent, ((sent, prompt),), output), now)
        sent += 1
    while (events := engine.step(now)) is not None:
        now = events.ended_at
        for _ in events.finished[: requests - sent]:
            engine.submit(SimRequest(sent, ((sent, prompt),), output), now)
            sent += 1
    return requests * output / now, engine.counters.preemptions


def best_point(
    profile: str, index: int, *, rounds: int, shares: Sequence[float] = SHARES_OF_KV
) -> Point:
    """The best of the windows at one of the LENGTHS, each for `rounds` windows of requests."""
    prompt, output = LENGTHS[index]
    fits = PROFILES[profile].kv_tokens / (prompt + output / 2)
    points = []
    for window in sorted({min(CONFIG.max_num_seqs, int(share * fits)) for share in shares}):
        speed, preemptions = simulate(profile, prompt, output, window, rounds * window)
        published = PUBLISHED[profile][index]
        points.append(Point(profile, prompt, output, published, speed, window, preemptions))
    return max(points, key=lambda point: point.simulated)


def spread(points: Sequence[Point]) -> tuple[float, float, float]:
    """Least, greatest and geometric mean of the ratios."""
    ratios = [point.ratio for point in points]
    return min(ratios), max(ratios), math.exp(sum(map(math.log, ratios)) / len(ratios))
