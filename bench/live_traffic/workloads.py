"""Requests of the experiments: what live users ask, when, and what batches hold.

Lengths and arrival processes are those of scheduling.md section 4.5. Every generator is a function
of its seed alone, so that each rule meets the same live traffic and the same batch.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from lowtide.engine_sim.benchmarks.virtual import Arrival
from lowtide.engine_sim.state.requests import SimRequest

Rate = Callable[[float], float]
"""Live requests a second at an instant."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens, lognormal: the logarithm's mean and deviation, and where the tail is cut."""

    mean: float
    deviation: float
    most: int = 16_000

    def draw(self, rng: random.Random) -> int:
        return max(1, min(self.most, round(rng.lognormvariate(self.mean, self.deviation))))


LIVE_PROMPT: Final = Lengths(6.2, 0.7)
LIVE_ANSWER: Final = Lengths(5.0, 0.7, 4_000)

BATCHES: Final = {
    "chat": (Lengths(5.0, 1.0), Lengths(5.0, 0.9, 6_000)),
    "summ": (Lengths(7.3, 0.6), Lengths(4.7, 0.4, 6_000)),
    "longgen": (Lengths(5.5, 0.5), Lengths(7.0, 0.8, 6_000)),
}
"""Prompt and answer by kind of batch."""


def steady(rate: float) -> Rate:
    """The same all the time."""
    return lambda _: rate


def diurnal(peak: float, day_s: float) -> Rate:
    """A day from 0.1 to 0.9 of the peak and back, beginning at night."""
    return lambda at: peak * (0.5 - 0.4 * math.cos(2 * math.pi * at / day_s))


def bursts(
    rate: float, *, factor: float = 3.0, span_s: float = 30.0, every_s: float = 180.0
) -> Rate:
    """`factor` times as much for `span_s`, from half of each period on."""
    begins = every_s / 2

    def at(instant: float) -> float:
        return rate * factor if begins <= instant % every_s < begins + span_s else rate

    return at


def live_arrivals(rate: Rate, most: float, until_s: float, seed: int) -> Iterator[Arrival]:
    """Poisson arrivals thinned from `most` a second, in order of time."""
    rng = random.Random(f"live {seed}")
    at, number = rng.expovariate(most), 0
    while at < until_s:
        if rng.random() < rate(at) / most:
            number += 1
            prompt, answer = LIVE_PROMPT.draw(rng), LIVE_ANSWER.draw(rng)
            name = f"live-{number}"
            yield Arrival(at, SimRequest(name, [(name, prompt)], answer, interactive=True))
        at += rng.expovariate(most)


def batch_requests(kind: str, seed: int) -> Iterator[SimRequest]:
    """Without end, so that a batch never runs out while a rule is measured."""
    rng = random.Random(f"batch {kind} {seed}")
    prompt, answer = BATCHES[kind]
    number = 0
    while True:
        number += 1
        name = f"batch-{number}"
        yield SimRequest(name, [(name, prompt.draw(rng))], answer.draw(rng))
