"""Every feature that is said to go on working under the scheduler class, tried on a real vLLM.

    python -m bench.step_bound_vllm.features --vllm build/vllm/bin/python [--only LoRA ...]

A vLLM on the CPU with the class, a small random Llama with two random adapters, live and batch
calls together; then two engines behind one address, and servers that have to refuse their start.
Prints one line for each feature and ends with status 1 where one failed, within ten minutes.
`make test-vllm-real` runs it.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from bench.random_llama import random_llama
from bench.random_lora import RANK, random_lora
from bench.step_bound_vllm import starts
from bench.step_bound_vllm.calls import Caller, Failed
from bench.step_bound_vllm.engine import CLASS, Engine, check_wheel, run_to_end
from bench.step_bound_vllm.trials import STEP_TOKENS, TRIALS

LIMIT_S: Final = 600.0
TRIAL_S: Final = 150.0
FLAGS: Final = (
    f"--max-num-batched-tokens {STEP_TOKENS} --max-num-seqs 64 --max-model-len 4096 "
    "--enforce-eager --load-format dummy"
)
DATA_PARALLELISM: Final = "data parallelism"
NAMES: Final = (*TRIALS, DATA_PARALLELISM, *starts.REFUSALS)


class Results:
    """Prints a line as each trial ends. One that has no time left fails. `failed`: how many did."""

    def __init__(self, only: list[str] | None) -> None:
        self._only = only
        self._until = time.monotonic() + LIMIT_S
        self.failed = 0

    def has(self, *names: str) -> bool:
        return not self._only or any(name in self._only for name in names)

    async def trial(self, name: str, run: Callable[[], Awaitable[Any]]) -> None:
        if not self.has(name):
            return
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(TRIAL_S, self._until - began)):
                verdict, seen = "pass", await run()
        except (Failed, TimeoutError, ExceptionGroup, httpx.HTTPError) as error:
            verdict, seen = "FAIL", f"{type(error).__name__}: {error}"
            self.failed += 1
        print(f"{verdict}  {name}, {time.monotonic() - began:.0f} s: {seen}", flush=True)


async def features(asked: argparse.Namespace, folder: Path) -> int:
    """How many failed. Raises RuntimeError where the first server does not start."""
    results = Results(asked.only)
    model = random_llama(folder / "model", layers=asked.layers, ends=True)
    if results.has(*TRIALS):
        await _on_one_server(asked, results, model, folder)
    two = partial(starts.data_parallelism, asked, model, folder)
    await results.trial(DATA_PARALLELISM, two)
    for name, refusal in starts.REFUSALS.items():
        run = partial(starts.refused, asked, model, folder, refusal)
        await results.trial(name, run)
    return results.failed


async def _on_one_server(
    asked: argparse.Namespace, results: Results, model: Path, folder: Path
) -> None:
    adapters = [
        f"{name}={random_lora(folder / name, model, seed=seed)}"
        for seed, name in enumerate(("first", "second"))
    ]
    flags = f"--enable-lora --max-loras 1 --max-lora-rank {RANK} --lora-modules"
    settings = argparse.Namespace(**vars(asked))
    settings.flags = f"{asked.flags} {flags} {' '.join(adapters)}"
    engine = Engine(CLASS, settings, str(model), folder)
    engine.start()
    try:
        await engine.is_up()
        caller = Caller(engine)
        for name, trial in TRIALS.items():
            await results.trial(name, partial(trial, caller))
        await caller.aclose()
    finally:
        engine.end()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.step_bound_vllm.features", description=__doc__
    )
    parser.add_argument("--vllm", required=True, help="Python of the environment with vLLM")
    parser.add_argument("--layers", type=int, default=4, help="of the random Llama")
    parser.add_argument("--only", nargs="*", choices=NAMES, help="these alone")
    asked = parser.parse_args()
    asked.device, asked.flags = "cpu", FLAGS
    check_wheel(asked.vllm)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        failed = run_to_end(features(asked, Path(name)))
    print(f"{failed} failed" if failed else "all passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
