"""What a batch alone gets from the engine with the class, over what it gets without.

Both servers are up; each stretch has one of them under a window of short batch calls, and reads its
own counters of tokens at two instants inside the steady part. The order is class, stock, stock,
class, so that a steady drift of the machine falls out; the two of a pair have the same lengths.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from bench.live_traffic.real_traffic import Traffic, fixed_window
from bench.step_bound_vllm.engine import BATCH_PRIORITY, CLASS, STOCK, Engine
from bench.turns import interval

ORDER: Final = (CLASS, STOCK, STOCK, CLASS)
WORDS: Final = (10, 40)
ANSWER: Final = (16, 48)
"""So short that calls have come and gone several times before a stretch is measured."""
STEADY_S: Final = 2.0
AROUND_S: Final = 0.6
"""Beside the two: the counters are read, and what was aborted leaves the engine."""


def takes_s(asked: argparse.Namespace) -> float:
    return float(asked.pairs * 2 * (STEADY_S + asked.stretch + AROUND_S))


async def alone(both: Mapping[str, Engine], asked: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of each stretch, the ratio of each pair, and its mean with a 95 % interval.

    Raises TimeoutError for an engine that does not become idle.
    """
    ratios, rates = [], []
    for block in range(asked.pairs // 2):
        these = [await _stretch(both[name], asked, block) for name in ORDER]
        ratios += [these[0] / these[1], these[3] / these[2]]
        rates.append([round(rate) for rate in these])
    return {"order": ORDER, "tokens_per_s": rates, "ratios": ratios, "ratio": interval(ratios)}


async def _stretch(engine: Engine, asked: argparse.Namespace, seed: int) -> float:
    """Tokens a second, of prompts and answers."""
    mark, more = f"{time.time_ns():x}", {"ignore_eos": True}
    traffic = Traffic(1.0, 32, WORDS, seed, mark, batch_tokens=ANSWER, more=more)
    async with fixed_window(engine.target, traffic, asked.window, BATCH_PRIORITY):
        await asyncio.sleep(STEADY_S)
        before, began = await engine.tokens(), time.perf_counter()
        await asyncio.sleep(asked.stretch)
        after, ended = await engine.tokens(), time.perf_counter()
    await engine.is_idle()
    return (after - before) / (ended - began)
