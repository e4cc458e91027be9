"""How long batch calls wait beside live calls that never stop: for a first token, and between two.

Live calls and batch calls are streamed in closed loops, so each step of the engine has live work.
A call that has not ended when the time is over counts with what it has waited until then.
"""

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bench.live_traffic.real_traffic import CONNECTIONS, Traffic, token_instants
from bench.step_bound_vllm.engine import BATCH_PRIORITY, CLASS, STOCK, Engine, until_idle
from lowtide.engines.http.client import HttpEngine

STREAMS_MAX: Final = 64
"""More batch calls than this one client could not read as fast as an engine writes."""
LIVE_TOKENS: Final = 256
BATCH_WORDS: Final = (20, 120)
AROUND_S: Final = 1.0


@dataclass
class Waits:
    """Seconds, of the calls of one kind."""

    first: list[float] = field(default_factory=list)
    """From sending to the first token."""
    gaps: list[float] = field(default_factory=list)
    """Between tokens, or blocks of several."""
    pending: dict[int, tuple[float, bool]] = field(default_factory=dict)
    """Since when a call under way waits, and whether it has had a token."""

    def end(self, now: float) -> None:
        """Counts the calls under way with what they have waited until `now`."""
        for since, has_begun in self.pending.values():
            (self.gaps if has_begun else self.first).append(now - since)


def takes_s(asked: argparse.Namespace) -> float:
    return 2 * float(asked.warm_up + asked.seconds + AROUND_S)


async def starvation(both: Mapping[str, Engine], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each engine. Raises RuntimeError for a call that fails."""
    return [await _row(both[name], asked) for name in (STOCK, CLASS)]


async def _row(engine: Engine, asked: argparse.Namespace) -> dict[str, Any]:
    more = {"ignore_eos": True}
    traffic = Traffic(1.0, LIVE_TOKENS, BATCH_WORDS, 3, f"{time.time_ns():x}", more=more)
    live, batch = traffic.live_bodies(engine.target.model), _streamed(traffic, engine)
    http = HttpEngine(engine.target.url, connections_max=CONNECTIONS)
    waits = {"live": Waits(), "batch": Waits()}
    loops = [_loop(http, live, waits["live"]) for _ in range(asked.live_streams)]
    loops += [_loop(http, batch, waits["batch"]) for _ in range(min(asked.window, STREAMS_MAX))]
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        await asyncio.sleep(asked.warm_up)
        for each in waits.values():
            each.first.clear()
            each.gaps.clear()
        await asyncio.wait(tasks, timeout=asked.seconds, return_when=asyncio.FIRST_EXCEPTION)
        for each in waits.values():
            each.end(time.perf_counter())
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await http.aclose()
    for error in ended:
        if isinstance(error, RuntimeError):
            raise error
    await until_idle(engine)
    return {"engine": engine.name, **{kind: _summary(each) for kind, each in waits.items()}}


def _streamed(traffic: Traffic, engine: Engine) -> Iterator[bytes]:
    for body in traffic.batch_bodies(engine.target.model):
        yield json.dumps({**body, "stream": True, "priority": BATCH_PRIORITY}).encode()


async def _loop(http: HttpEngine, bodies: Iterator[bytes], waits: Waits) -> None:
    """One call after the other, without end."""
    for body in bodies:
        number, since, has_begun = next(_NUMBERS), time.perf_counter(), False
        waits.pending[number] = since, False
        async for now in token_instants(http, body):
            (waits.gaps if has_begun else waits.first).append(now - since)
            since, has_begun = now, True
            waits.pending[number] = since, True
        del waits.pending[number]


_NUMBERS = itertools.count()


def _summary(waits: Waits) -> dict[str, Any]:
    """Counts, and milliseconds."""
    reported: dict[str, Any] = {}
    for name, values in (("ttft", sorted(waits.first)), ("itl", sorted(waits.gaps))):
        reported[f"{name}_count"] = len(values)
        for quantile, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            value = values[round(share * (len(values) - 1))] if values else 0.0
            reported[f"{name}_{quantile}_ms"] = round(1e3 * value, 1)
    return reported
