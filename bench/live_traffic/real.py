"""A batch beside live calls on a real engine, in real time.

    python -m bench.live_traffic.real [--url http://127.0.0.1:8000/v1 --model NAME]

Live calls are streamed through Lowtide by a Poisson process: with no batch, beside a plain
client that keeps a fixed number of calls in flight, and beside batches of Lowtide that do not run
out. `--url` is an engine of yours that runs already; without it, the embedded llama.cpp with the
random model is started. Where engine, server and clients share one machine, read the ratios. Each
row has a server of its own. Prints a table, medians with least and most, and one JSON line.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.live_traffic.real_traffic import (
    CONNECTIONS,
    Meter,
    Target,
    Traffic,
    fixed_window,
    house,
    live_calls,
    lowtide_batch,
)
from lowtide.engines.embedded.engine import EmbeddedEngine
from lowtide.engines.http.client import HttpEngine
from lowtide.engines.models.random_model import MODEL_ID, random_model

LOWTIDE: Final = "Lowtide"
UNWATCHED: Final = "Lowtide, watch_prompts = false"
WHOLE: Final = "Lowtide, prompt_parts = false"
NO_BATCH: Final = "no batch"
NO_LIVE: Final = "Lowtide, no live calls"
SWITCHES: Final = {
    UNWATCHED: {"watch_prompts": False},
    WHOLE: {"watch_prompts": True, "prompt_parts": False},
}
"""Settings of the engine in rows that have some of their own."""
REST_S: Final = 2.0
"""Between rows: what was aborted leaves the engine."""
Run = dict[str, Any]


@asynccontextmanager
async def engine_of(asked: argparse.Namespace, folder: Path) -> AsyncIterator[Target]:
    """The one that was named, or the embedded one for as long as it is needed."""
    if asked.url:
        yield Target(asked.url, asked.model, asked.api_key)
        return
    model = random_model(folder / "random.gguf")
    engine = EmbeddedEngine(model, model_id=MODEL_ID, log_path=folder / "engine.log")
    try:
        yield Target(await engine.start(), MODEL_ID)
    finally:
        await engine.aclose()


async def play(
    row: str,
    window: int | None,
    target: Target,
    asked: argparse.Namespace,
    round_: int,
    home: Path,
    *,
    priority: int | None = None,
    has_live: bool = True,
    counted: Meter | None = None,
) -> Run:
    """One row, once. `window`: of the plain client, where the row has one; `priority`: of its
    calls. `counted`: the engine's own count of tokens, live ones in it, to be used instead of those
    of finished batch calls.
    """
    traffic = Traffic(
        rate=asked.rate,
        live_tokens=asked.live_tokens,
        batch_words=tuple(asked.batch_words),
        seed=round_,
        mark=f"{time.time_ns():x}",
    )
    folder = home / f"{round_}-{row.replace(' ', '-')}"
    with house(folder, target, **SWITCHES.get(row, {"watch_prompts": True})) as address:
        async with AsyncExitStack() as stack:
            proxied = HttpEngine(f"{address}/v1", connections_max=CONNECTIONS)
            stack.push_async_callback(proxied.aclose)
            meter = None
            if window is not None:
                client = fixed_window(target, traffic, window, priority)
                meter = await stack.enter_async_context(client)
            elif row != NO_BATCH:
                meter = await stack.enter_async_context(
                    lowtide_batch(address, folder, target, traffic)
                )
            bodies, rng = traffic.live_bodies(target.model), random.Random(round_)
            rate, meter = asked.rate if has_live else 1e-9, counted or meter
            await live_calls(proxied, bodies, rng, rate, asked.warm_up)
            began, before = time.perf_counter(), await meter() if meter else 0
            first, gaps = await live_calls(proxied, bodies, rng, rate, asked.seconds)
            done, took = (await meter() if meter else 0) - before, time.perf_counter() - began
    await asyncio.sleep(REST_S)
    return {
        "row": row,
        "round": round_,
        "calls": len(first),
        "ttft_p50_ms": 1e3 * _quantile(first, 0.5),
        "ttft_p99_ms": 1e3 * _quantile(first, 0.99),
        "itl_p50_ms": 1e3 * _quantile(gaps, 0.5),
        "itl_p99_ms": 1e3 * _quantile(gaps, 0.99),
        "batch_tokens_per_s": done / took,
        "load": os.getloadavg()[0],
    }


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))] if values else 0.0


async def measure(asked: argparse.Namespace) -> list[Run]:
    """Round by round, so that a busy minute of the machine does not fall on one row alone."""
    rows: list[tuple[str, int | None]] = [(NO_BATCH, None)]
    rows += [(f"fixed {window}", window) for window in asked.windows]
    rows += [(LOWTIDE, None), (UNWATCHED, None), (NO_LIVE, None)]
    runs = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        async with engine_of(asked, Path(name)) as target:
            for round_ in range(1, asked.rounds + 1):
                for row, window in rows:
                    live = row != NO_LIVE
                    run = await play(row, window, target, asked, round_, Path(name), has_live=live)
                    runs.append(run)
                    print(json.dumps(runs[-1]), flush=True)
    return runs


def show(runs: Sequence[Run]) -> None:
    print("\n| | TTFT p50 | TTFT p99 | × no batch | ITL p99 | × no batch | batch tokens/s |")
    print("|---|---|---|---|---|---|---|")
    of_row: dict[str, list[Run]] = {}
    for run in runs:
        of_row.setdefault(run["row"], []).append(run)
    for row, these in of_row.items():
        cells = [_spread(these, "ttft_p50_ms", " ms")]
        for name in ("ttft_p99_ms", "itl_p99_ms"):
            ratio = _median(these, name) / _median(of_row[NO_BATCH], name)
            cells += [_spread(these, name, " ms"), f"{ratio:.1f}"]
        if row == NO_LIVE:
            cells = [""] * len(cells)
        batch = _spread(these, "batch_tokens_per_s", "") if row != NO_BATCH else ""
        print(f"| {' | '.join([row, *cells, batch])} |")


def _median(runs: Sequence[Run], name: str) -> float:
    return statistics.median(float(run[name]) for run in runs)


def _spread(runs: Sequence[Run], name: str, unit: str) -> str:
    values = [run[name] for run in runs]
    middle = f"{statistics.median(values):,.0f}{unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.0f} to {max(values):,.0f})"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.live_traffic.real", description=__doc__)
    parser.add_argument("--url", help="of an engine that runs, with its /v1")
    parser.add_argument("--model", help="what that engine calls its model")
    parser.add_argument("--api-key", help="that it asks for")
    parser.add_argument("--rate", type=float, default=2.0, help="live calls a second")
    parser.add_argument("--live-tokens", type=int, default=32, help="of each live answer")
    parser.add_argument("--batch-words", type=int, nargs=2, default=(30, 180), help="of a prompt")
    parser.add_argument("--windows", type=int, nargs="*", default=(16,), help="of the plain client")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each row")
    parser.add_argument("--warm-up", type=float, default=8.0, help="before each row, in seconds")
    parser.add_argument("--rounds", type=int, default=3, help="of all rows")
    asked = parser.parse_args()
    if bool(asked.url) != bool(asked.model):
        parser.error("--url and --model go together")
    return asked


def main() -> None:
    asked = arguments()
    runs = asyncio.run(measure(asked))
    show(runs)
    options = {name: value for name, value in vars(asked).items() if name != "api_key"}
    print(json.dumps({"bench": "live_real", "options": options, "runs": runs}))


if __name__ == "__main__":
    main()
