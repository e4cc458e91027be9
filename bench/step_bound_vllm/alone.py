"""What a batch alone gets from the engine with the class, over what it gets without.

Both servers are up; each stretch has one of them under a window of short batch calls, and reads its
own counters of tokens at two instants inside the steady part. The order is class, stock, stock,
class, so that a steady drift of the machine falls out; the two of a pair have the same lengths.
On a CPU the server's own processor time for a token is the steadier figure of the two: other
programs on the machine hardly move it.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.live_traffic.real_traffic import Traffic, fixed_window
from bench.step_bound_vllm.engine import BATCH_PRIORITY, CLASS, STOCK, Engine, until_idle
from bench.turns import interval

ORDER: Final = (CLASS, STOCK, STOCK, CLASS)
WORDS: Final = (10, 40)
ANSWER: Final = (16, 48)
"""So short that calls have come and gone several times before a stretch is measured."""
STEADY_S: Final = 2.0
AROUND_S: Final = 0.6
"""Beside the two: the counters are read, and what was aborted leaves the engine."""


class Stretch(NamedTuple):
    """What one stretch came to: tokens a second, of prompts and answers, and what one cost."""

    rate: float
    cpu_s_of_a_token: float


def takes_s(asked: argparse.Namespace) -> float:
    return float(asked.pairs * 2 * (STEADY_S + asked.stretch + AROUND_S))


async def alone(both: Mapping[str, Engine], asked: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second and microseconds of processor time for a token in each stretch; of both, the
    ratios with the class over without: their mean and its 95 % interval.

    Raises TimeoutError for an engine that does not become idle.
    """
    blocks = [
        [await _stretch(both[name], asked, block) for name in ORDER]
        for block in range(asked.pairs // 2)
    ]
    return {
        "order": ORDER,
        "pairs": 2 * len(blocks),
        "tokens_per_s": [[round(each.rate) for each in block] for block in blocks],
        "cpu_us": [[round(1e6 * each.cpu_s_of_a_token, 1) for each in block] for block in blocks],
        "rate": _ratio([[each.rate for each in block] for block in blocks]),
        "cpu": _ratio([[each.cpu_s_of_a_token for each in block] for block in blocks]),
    }


def _ratio(blocks: Sequence[Sequence[float]]) -> list[float]:
    pairs = [pair for block in blocks for pair in (block[:2], block[:1:-1])]
    return interval([with_class / without for with_class, without in pairs])


async def _stretch(engine: Engine, asked: argparse.Namespace, seed: int) -> Stretch:
    mark, more = f"{time.time_ns():x}", {"ignore_eos": True}
    traffic = Traffic(1.0, 32, WORDS, seed, mark, batch_tokens=ANSWER, more=more)
    async with fixed_window(engine.target, traffic, asked.window, BATCH_PRIORITY):
        await asyncio.sleep(STEADY_S)
        before, began, cpu_s = await engine.tokens(), time.perf_counter(), engine.cpu_s()
        await asyncio.sleep(asked.stretch)
        tokens, cpu_s = await engine.tokens() - before, engine.cpu_s() - cpu_s
        seconds = time.perf_counter() - began
    await until_idle(engine)
    return Stretch(tokens / seconds, cpu_s / tokens)
