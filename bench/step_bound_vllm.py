"""vLLM with and without the scheduler class, live calls beside a batch, in real time.

    python -m bench.step_bound_vllm --vllm build/vllm/bin/python [--model NAME] [--device cpu]

Two vLLM servers run side by side from begin to end, one with vLLM's scheduler and one with the
class; only one is called at a time, and they take turns, so that a slow minute of the machine falls
on both. Prints a table of what live users felt and what the batch got, the throughput of a batch
alone in pairs, and what became of a batch whose engine was killed. The defaults take at most ten
minutes on one GPU. `--vllm` is the Python of an environment with vLLM 0.32 and the wheel; without
`--model` a small random Llama is made.
"""

import argparse
import asyncio
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from bench.live_traffic.real import LOWTIDE, NO_BATCH, Run, play
from bench.live_traffic.real_traffic import ENDPOINT, Target, Traffic, house
from bench.random_llama import random_llama

STOCK: Final = "vLLM's scheduler"
CLASS: Final = "scheduler class"
NAME: Final = "bench"
BATCH_PRIORITY: Final = 100
START_S: Final = 300.0
KILL_LINES: Final = 120
CPU_ENV: Final = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "1"}
CPU_FLAGS: Final = (
    "--max-num-batched-tokens 2048 --max-num-seqs 64 --max-model-len 4096 --enforce-eager"
)


class Engine:
    """One vLLM server, as a child process that can be killed and started again."""

    def __init__(self, name: str, asked: argparse.Namespace, model: str, folder: Path) -> None:
        self.name = name
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.target = Target(f"{self.address}/v1", NAME)
        flags = shlex.split(asked.flags)
        if name == CLASS:
            kind = "StepBoundSyncScheduler" if asked.device == "cpu" else "StepBoundScheduler"
            flags += ["--scheduler-cls", f"lowtide_vllm.scheduler.{kind}"]
        self._command = [
            asked.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
            "--host", "127.0.0.1", "--port", str(port), "--served-model-name", NAME,
            "--scheduling-policy", "priority", *flags,
        ]  # fmt: skip
        self._env = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        self._env |= CPU_ENV if asked.device == "cpu" else {}
        self._log = folder / f"{'class' if name == CLASS else 'stock'}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    async def is_up(self) -> None:
        """Returns once it answers. Raises RuntimeError when it ended, or takes too long."""
        give_up_at = time.monotonic() + START_S
        async with httpx.AsyncClient(base_url=self.address, timeout=5.0) as http:
            while time.monotonic() < give_up_at:
                if self._process is None or self._process.poll() is not None:
                    break
                try:
                    if (await http.get("/health")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.5)
        raise RuntimeError(f"{self.name} did not start:\n{self._log.read_text()[-3000:]}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends the server and the processes that it started."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, how)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def engines(asked: argparse.Namespace, folder: Path) -> Iterator[dict[str, Engine]]:
    """Both servers, started at the same time."""
    model = asked.model or str(random_llama(folder / "model", layers=asked.layers))
    both = {name: Engine(name, asked, model, folder) for name in (STOCK, CLASS)}
    try:
        for engine in both.values():
            engine.start()
        yield both
    finally:
        for engine in both.values():
            engine.end()


async def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows: list[Run] = []
    with engines(asked, folder) as both:
        for engine in both.values():
            await engine.is_up()
        for round_ in range(1, asked.rounds + 1):
            rows += await _round(both, asked, round_, folder)
        killed = await _killed(both[CLASS], folder) if asked.kill else None
    return {"rows": rows, "killed": killed}


async def _round(
    both: dict[str, Engine], asked: argparse.Namespace, round_: int, folder: Path
) -> list[Run]:
    """Every row once; in every other round the class comes first."""
    names = (STOCK, CLASS) if round_ % 2 else (CLASS, STOCK)
    fixed, alone = f"fixed {asked.window}", f"alone, fixed {asked.window}"
    plan: list[tuple[str, str, int | None]] = [(STOCK, NO_BATCH, None)]
    plan += [(name, fixed, asked.window) for name in names]
    plan += [(name, LOWTIDE, None) for name in names]
    plan += [(name, alone, asked.window) for name in (*names, *reversed(names))]
    rows = []
    for place, (name, row, window) in enumerate(plan):
        home = folder / f"row-{round_}-{place}"
        run = await play(
            row, window, both[name].target, asked, round_, home,
            priority=BATCH_PRIORITY, has_live=row != alone,
        )  # fmt: skip
        rows.append({"engine": name, **run})
        print(json.dumps(rows[-1]), flush=True)
    return rows


async def _killed(engine: Engine, folder: Path) -> dict[str, Any]:
    """A batch through Lowtide, whose engine is killed in its midst and started again."""
    traffic = Traffic(1.0, 32, (100, 600), seed=7, mark=f"{time.time_ns():x}")
    bodies = traffic.batch_bodies(NAME)
    lines = [
        json.dumps({"custom_id": f"r{n}", "method": "POST", "url": ENDPOINT, "body": next(bodies)})
        for n in range(KILL_LINES)
    ]
    with house(folder / "killed", engine.target, watch_prompts=True) as address:
        async with httpx.AsyncClient(base_url=address, timeout=60.0) as server:
            made = await _batch(server, "\n".join(lines))
            await _once(server, made, lambda seen: _done(seen) >= KILL_LINES // 3)
            began = time.monotonic()
            engine.end(signal.SIGKILL)
            done_at_kill = _done(await _seen(server, made))
            engine.start()
            await engine.is_up()
            up_s = time.monotonic() - began
            seen = await _once(
                server, made, lambda seen: seen["status"] not in ("in_progress", "finalizing")
            )
            output = await server.get(f"/v1/files/{seen['output_file_id']}/content")
    answered = [json.loads(line)["custom_id"] for line in output.text.splitlines()]
    return {
        "lines": KILL_LINES,
        "answered": len(answered),
        "answered_twice": len(answered) - len(set(answered)),
        "failed": seen["request_counts"]["failed"],
        "done_at_kill": done_at_kill,
        "engine_up_again_s": round(up_s, 1),
        "batch_done_s": round(time.monotonic() - began, 1),
    }


async def _batch(server: httpx.AsyncClient, lines: str) -> str:
    sent = await server.post("/v1/files", files={"file": lines}, data={"purpose": "batch"})
    asked = {"input_file_id": sent.raise_for_status().json()["id"], "endpoint": ENDPOINT}
    asked["completion_window"] = "24h"
    return str((await server.post("/v1/batches", json=asked)).raise_for_status().json()["id"])


async def _seen(server: httpx.AsyncClient, batch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await server.get(f"/v1/batches/{batch_id}")).raise_for_status().json()
    return found


async def _once(
    server: httpx.AsyncClient, batch_id: str, fact: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The batch as soon as that holds. Raises TimeoutError after START_S."""
    async with asyncio.timeout(START_S):
        while not fact(seen := await _seen(server, batch_id)):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.1)
    return seen


def _done(seen: dict[str, Any]) -> int:
    return int(seen["request_counts"]["completed"])


def show(found: dict[str, Any]) -> None:
    """The table, the pairs and what became of the killed engine's batch."""
    rows: list[Run] = found["rows"]
    beside = [run for run in rows if not run["row"].startswith("alone")]
    quiet = [run for run in beside if run["row"] == NO_BATCH]
    print("\n| engine | batch | TTFT p50 | TTFT p99 | × | ITL p50 | ITL p99 | × | batch tokens/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for key in dict.fromkeys((run["engine"], run["row"]) for run in beside):
        these = [run for run in beside if (run["engine"], run["row"]) == key]
        cells = list(key)
        for name in ("ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms"):
            cells.append(_spread([run[name] for run in these], " ms"))
            if name.endswith("p99_ms"):
                cells.append(f"{_median(these, name) / _median(quiet, name):.2f}")
        cells.append(_spread([run["batch_tokens_per_s"] for run in these], ""))
        print(f"| {' | '.join(cells)} |")
    ratios = _pairs([run for run in rows if run["row"].startswith("alone")])
    reported = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    median = statistics.median(ratios)
    print(f"\nBatch alone, class over stock, in pairs: {reported}; median {median:.3f}")
    if found["killed"] is not None:
        print(f"Killed and started again: {json.dumps(found['killed'])}")


def _pairs(alone: Sequence[Run]) -> list[float]:
    """Tokens a second with the class over those without, of runs that followed each other."""
    ratios = []
    for first, second in zip(alone[::2], alone[1::2], strict=True):
        by_name = {run["engine"]: run["batch_tokens_per_s"] for run in (first, second)}
        ratios.append(by_name[CLASS] / by_name[STOCK])
    return ratios


def _median(runs: Sequence[Run], name: str) -> float:
    return statistics.median(float(run[name]) for run in runs)


def _spread(values: Sequence[float], unit: str) -> str:
    middle = f"{statistics.median(values):,.0f}{unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.0f} to {max(values):,.0f})"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.step_bound_vllm", description=__doc__)
    parser.add_argument("--vllm", required=True, help="Python of the environment with vLLM")
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--model", help="a folder or a name; else a random Llama")
    parser.add_argument("--layers", type=int, default=16, help="of the random Llama")
    parser.add_argument("--flags", help="of both servers, instead of the defaults")
    parser.add_argument("--rate", type=float, default=4.0, help="live calls a second")
    parser.add_argument("--live-tokens", type=int, default=64, help="of each live answer")
    parser.add_argument("--batch-words", type=int, nargs=2, default=(100, 600), help="of a prompt")
    parser.add_argument("--window", type=int, default=64, help="of the plain client")
    parser.add_argument("--seconds", type=float, default=25.0, help="of each row")
    parser.add_argument("--warm-up", type=float, default=6.0, help="before each row, in seconds")
    parser.add_argument("--rounds", type=int, default=1, help="of all rows")
    parser.add_argument("--no-kill", dest="kill", action="store_false", help="leave that out")
    asked = parser.parse_args()
    if asked.flags is None:
        asked.flags = CPU_FLAGS if asked.device == "cpu" else "--gpu-memory-utilization 0.45"
    if asked.model is None:
        asked.flags += " --load-format dummy"
    return asked


def main() -> None:
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        found = asyncio.run(measure(asked, Path(name)))
    show(found)
    print(json.dumps({"bench": "step_bound_vllm", "options": vars(asked), **found}))


if __name__ == "__main__":
    main()
