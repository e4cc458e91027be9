"""Watched prompts against estimated ones, on both real engines, in at most ten minutes.

    python -m bench.live_traffic.watched --vllm PYTHON [--rounds 3] [--seconds 20]

Lowtide beside live calls with `watch_prompts` true and false, on the embedded llama.cpp with the
random model and then on a vLLM on the CPU with a random Llama (`--vllm` is the Python of its
environment; without it that part is left out). The two settings take turns, and the one that came
second begins the next round, so that a slow minute of the machine falls on both. Prints a table,
the ratio of each pair, and one JSON line.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.live_traffic.real import LOWTIDE, NO_BATCH, UNWATCHED, Run, engine_of, play, show
from bench.live_traffic.real_traffic import Target
from bench.random_llama import random_llama
from bench.step_bound_vllm.engine import STOCK, Engine

LLAMA_CPP: Final = "llama.cpp"
VLLM: Final = "vLLM"
VLLM_FLAGS: Final = (
    "--max-num-batched-tokens 512 --max-num-seqs 64 --max-model-len 4096 --enforce-eager "
    "--load-format dummy"
)
COMPARED: Final = ("batch_tokens_per_s", "ttft_p50_ms", "ttft_p99_ms", "itl_p99_ms")


@asynccontextmanager
async def vllm_of(
    asked: argparse.Namespace, folder: Path, flags: str = VLLM_FLAGS, words: Iterable[str] = ()
) -> AsyncIterator[Target]:
    """A vLLM with its own scheduler and a random Llama, as long as it is needed. Those words are
    its tokens.
    """
    model = random_llama(folder / "model", layers=asked.layers, words=words)
    settings = argparse.Namespace(vllm=asked.vllm, device="cpu", flags=flags)
    engine = Engine(STOCK, settings, str(model), folder)
    engine.start()
    try:
        await engine.is_up()
        yield engine.target
    finally:
        engine.end()


async def rounds(
    engine: str, target: Target, asked: argparse.Namespace, folder: Path, other: str = UNWATCHED
) -> list[Run]:
    """No batch once, then Lowtide as it is and the `other` row in turns."""
    order = [LOWTIDE, other]
    plan = [NO_BATCH]
    for round_ in range(asked.rounds):
        plan += order if round_ % 2 == 0 else order[::-1]
    runs = []
    for place, row in enumerate(plan):
        # Both of a pair meet the same live calls.
        run = await play(row, None, target, asked, 1 + (place + 1) // 2, folder / f"{place}")
        runs.append({"engine": engine, **run})
        print(json.dumps(runs[-1]), flush=True)
    return runs


async def measure(asked: argparse.Namespace, folder: Path) -> list[Run]:
    asked.batch_words, asked.url = (30, 180), None
    async with engine_of(asked, folder) as target:
        runs = await rounds(LLAMA_CPP, target, asked, folder / "llama")
    if asked.vllm:
        asked.batch_words = (100, 600)
        async with vllm_of(asked, folder) as target:
            runs += await rounds(VLLM, target, asked, folder / "vllm")
    return runs


def pairs(runs: Sequence[Run], name: str, other: str = UNWATCHED) -> list[float]:
    """Lowtide as it is over the `other` row, of the two runs of each round."""
    ratios = []
    for first, second in zip(runs[1::2], runs[2::2], strict=True):
        by_row = {run["row"]: run[name] for run in (first, second)}
        ratios.append(by_row[LOWTIDE] / by_row[other])
    return ratios


def report(runs: Sequence[Run], what: str, other: str = UNWATCHED) -> None:
    """Prints the table of one engine, and the ratio of each pair, which is of `what`."""
    show(runs)
    for compared in COMPARED:
        ratios = pairs(runs, compared, other)
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{what}, {compared}: {statistics.median(ratios):.2f} ({each})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.live_traffic.watched", description=__doc__
    )
    parser.add_argument("--vllm", help="Python of an environment with vLLM on the CPU")
    parser.add_argument("--layers", type=int, default=4, help="of the random Llama")
    parser.add_argument("--rate", type=float, default=2.0, help="live calls a second")
    parser.add_argument("--live-tokens", type=int, default=32, help="of each live answer")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--warm-up", type=float, default=5.0, help="before each run, in seconds")
    parser.add_argument("--rounds", type=int, default=3, help="of the pair, on each engine")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        runs = asyncio.run(measure(asked, Path(name)))
    for engine in (LLAMA_CPP, VLLM):
        of_engine = [run for run in runs if run["engine"] == engine]
        if of_engine:
            print(f"\n{engine}")
            report(of_engine, "watched over estimated")
    print(json.dumps({"bench": "watched_prompts", "options": vars(asked), "runs": runs}))


if __name__ == "__main__":
    main()
