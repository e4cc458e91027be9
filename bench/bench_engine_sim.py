"""The simulated engine against published throughput, and how fast it simulates.

Each published point of two models, beside the best of a few windows of the simulated engine, ten
windows of requests each; then 12,000 chat requests with 2.6 million output tokens on one replica.
Takes about a minute. Run: python -m bench.bench_engine_sim; the last line is JSON.
"""

import json
import random
import time
from typing import Any, Final

from lowtide.engine_sim.benchmarks.published import LENGTHS, PUBLISHED, Point, best_point, spread
from lowtide.engine_sim.benchmarks.virtual import GatewayPolicy, VirtualWorld
from lowtide.engine_sim.engine import SimEngine
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engine_sim.state.requests import SimRequest

ROUNDS: Final = 10
CHATS: Final = 12_000
WINDOW: Final = 512


class Window(GatewayPolicy):
    """So many requests in flight, no more."""

    def __init__(self, requests: list[SimRequest], window: int) -> None:
        self.left = requests[::-1]
        self.window = window
        self.tokens = 0

    def on_start(self, world: VirtualWorld) -> None:
        for _ in range(self.window):
            world.submit(0, self.left.pop())

    def on_finished(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        self.tokens += request.output_tokens
        if self.left:
            world.submit(replica, self.left.pop())


def chats() -> list[SimRequest]:
    """Lengths as in scheduling.md section 4.5."""
    rng = random.Random(1)

    def tokens(mu: float, sigma: float) -> int:
        return max(1, round(rng.lognormvariate(mu, sigma)))

    return [SimRequest(n, ((n, tokens(5.0, 1.0)),), tokens(5.0, 0.9)) for n in range(CHATS)]


def speed() -> dict[str, float]:
    requests = chats()
    engine = SimEngine(PROFILES["8b-h100"])
    start = time.perf_counter()
    policy = Window(requests, WINDOW)
    virtual_s = VirtualWorld([engine], policy, poll_s=None).run()
    wall_s = time.perf_counter() - start
    return {
        "requests": CHATS,
        "output_tokens": policy.tokens,
        "steps": engine.counters.steps,
        "virtual_s": round(virtual_s, 1),
        "wall_s": round(wall_s, 2),
    }


def shown(points: list[Point]) -> dict[str, Any]:
    least, greatest, mean = spread(points)
    return {
        "points": [
            {
                "prompt": p.prompt, "output": p.output, "published": p.published,
                "simulated": round(p.simulated), "ratio": round(p.ratio, 3), "window": p.window,
                "preemptions": p.preemptions,
            }
            for p in points
        ],
        "least": round(least, 3), "greatest": round(greatest, 3), "geo_mean": round(mean, 3),
    }  # fmt: skip


def main() -> None:
    figures: dict[str, Any] = {"bench": "engine_sim", "speed": speed(), "profiles": {}}
    print(figures["speed"])
    for profile in PUBLISHED:
        start = time.perf_counter()
        points = [best_point(profile, index, rounds=ROUNDS) for index in range(len(LENGTHS))]
        figures["profiles"][profile] = shown(points)
        print(f"\n{profile:17} published simulated  ratio  window preemptions")
        for p in points:
            print(
                f"{p.prompt:>8}/{p.output:<8} {p.published:>9,} {p.simulated:>9,.0f} "
                f"{p.ratio:>6.3f} {p.window:>7} {p.preemptions:>11,}"
            )
        least, greatest, mean = spread(points)
        wall_s = time.perf_counter() - start
        print(f"{least:.3f} to {greatest:.3f}, geo-mean {mean:.3f}; {wall_s:.0f} s")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
