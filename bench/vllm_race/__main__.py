"""The same work by vLLM's `run-batch`, through Lowtide to the same vLLM, and by others.

    make bench-vllm
    make bench-peers        with Ray Data's HTTP processor and LiteLLM's batch_completion

A small Llama with random weights on one core of the CPU, the same arguments for server and
`run-batch`. Contestants take turns, in an order that moves on with each round. The server's cache
is emptied before each; `run-batch` has an engine of its own, while the server has nothing to do.
Seconds count from when the engine is ready and the contestant begins until the output lies there:
for `run-batch` from its reading of the file, for Lowtide the whole of `lowtide run` against a
`lowtide serve` that has just been started. Each output is checked, and told for its cached tokens.
Prints a table of medians with least and most, and one JSON line.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from bench.processes import serving
from bench.vllm_race.processes import WORK_S, Vllm, end, watched
from bench.vllm_race.work import MODEL, WORKS, Seen, Work, check, write

RUN_BATCH: Final = "vLLM run-batch"
LOWTIDE: Final = "Lowtide"
PEERS: Final = {"Ray Data": "ray", "LiteLLM": "litellm"}


@dataclass(frozen=True)
class Result:
    """One contestant at one work. `own_mb`: its own processes without the engine's."""

    seconds: float
    engine_mb: float
    own_mb: float
    seen: Seen
    load: float
    ready_s: float = 0.0


class Race:
    """The engine, the files, and who has to be run."""

    def __init__(
        self, folder: Path, vllm: Vllm, server: tuple[str, int], peers_python: Path | None
    ) -> None:
        """`server`: the root URL of the vLLM that serves, and its process."""
        self._folder = folder
        self._vllm = vllm
        self._root, self._engine = server
        self._peers_python = peers_python
        self._runs = 0
        self.contestants: dict[str, Callable[[Path, Path], tuple[float, float, float, float]]] = {
            RUN_BATCH: self._run_batch,
            LOWTIDE: self._lowtide,
        }
        if peers_python is not None:
            for name, module in PEERS.items():
                self.contestants[name] = partial(self._peer, module)

    def run(self, name: str, work: Work) -> Result:
        """Raises RuntimeError where something is missing in the output."""
        self._runs += 1
        source = self._folder / f"{work.name}.jsonl"
        output = self._folder / f"{self._runs}.jsonl"
        if not source.exists():
            write(work, source)
        seconds, engine_mb, own_mb, ready_s = self.contestants[name](source, output)
        return Result(seconds, engine_mb, own_mb, check(work, output), os.getloadavg()[0], ready_s)

    def _run_batch(self, source: Path, output: Path) -> tuple[float, float, float, float]:
        ready_s, seconds, peak_mb = self._vllm.run_batch(source, output)
        return seconds, peak_mb, 0.0, ready_s

    def _lowtide(self, source: Path, output: Path) -> tuple[float, float, float, float]:
        self._empty_cache()
        settings = (
            "[limits]\nenqueued_tokens_per_model = 1000000000\n"
            f'[[replica]]\nurl = "{self._root}/v1"\nmodels = ["{MODEL}"]\n'
        )
        with (
            tempfile.TemporaryDirectory() as folder,
            serving(Path(folder), settings) as server,
        ):
            words = [sys.executable, "-m", "lowtide", "run", str(source), "-o", str(output)]
            command = [*words, "--server", server.address, "--json"]
            began_s = time.monotonic()
            _, memories = _ended(command, (self._engine,), (server.pid,))
            return time.monotonic() - began_s, *memories, 0.0

    def _peer(self, name: str, source: Path, output: Path) -> tuple[float, float, float, float]:
        self._empty_cache()
        script = str(Path(__file__).with_name("peers.py"))
        url = f"{self._root}/v1"
        words = [str(self._peers_python), script, name, url, str(source), str(output)]
        said, memories = _ended(words, (self._engine,), ())
        times = json.loads(said.splitlines()[-1])
        return times["seconds"], *memories, times["ready_s"]

    def _empty_cache(self) -> None:
        answer = httpx.post(f"{self._root}/reset_prefix_cache", timeout=30, trust_env=False)
        answer.raise_for_status()


def _ended(
    command: Sequence[str], engine: Sequence[int], beside: Sequence[int]
) -> tuple[str, tuple[float, float]]:
    """Runs it; what it printed, and the most memory of the engine and of what runs beside it.

    Raises RuntimeError.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        with watched(*engine) as engine_memory, watched(process.pid, *beside) as own:
            said, _ = process.communicate(timeout=WORK_S)
    finally:
        end(process)
    if process.returncode != 0:
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}")
    return said, (engine_memory.peak_mb, own.peak_mb)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def rows(work: Work, results: Mapping[str, Sequence[Result]]) -> list[str]:
    """The table's rows of one work."""
    base = statistics.median(each.seconds for each in results[RUN_BATCH])
    reported = []
    for name, runs in results.items():
        if not runs:
            continue
        seconds = [each.seconds for each in runs]
        median = statistics.median(seconds)
        cached = statistics.median(each.seen.cached_tokens for each in runs)
        share = cached / runs[0].seen.prompt_tokens
        engine = max(each.engine_mb for each in runs)
        own = max(each.own_mb for each in runs)
        reported.append(
            f"| {work.name} | {name} | {median:.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
            f" | {base / median:.2f} | {cached:,.0f} ({share:.0%}) | {engine:,.0f} MB |"
            f" {f'{own:,.0f} MB' if own else ''} |"
        )
    return reported


def tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vllm", type=Path, default=Path("build/vllm/bin/python"))
    parser.add_argument("--peers", type=Path, help="the Python that has ray[data] and litellm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--works", nargs="+", default=[work.name for work in WORKS])
    parser.add_argument("--times", type=int, default=1, help="so many times the lines of each work")
    parser.add_argument("--seconds", type=float, default=1200, help="no round begins after these")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    began_s = time.monotonic()
    works = [work.grown(args.times) for work in WORKS if work.name in args.works]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="race-")))
        model = folder / "model"
        script = Path(__file__).with_name("model.py")
        subprocess.run([args.vllm, script, model], check=True, stdout=subprocess.DEVNULL)
        vllm = Vllm(args.vllm, model, folder)
        race = Race(folder, vllm, stack.enter_context(vllm.serving(_free_port())), args.peers)
        names = list(race.contestants)
        results: dict[str, dict[str, list[Result]]] = {
            work.name: {name: [] for name in names} for work in works
        }
        for round_ in range(args.rounds):
            if time.monotonic() - began_s > args.seconds:
                tell(f"the time is over after {round_} rounds")
                break
            for work in works:
                for place in range(len(names)):
                    name = names[(place + round_) % len(names)]
                    try:
                        result = race.run(name, work)
                    except RuntimeError as error:  # the others go on
                        tell(f"{round_ + 1} {work.name} {name}: {error}")
                        continue
                    results[work.name][name].append(result)
                    tell(f"{round_ + 1} {work.name} {name}: {result}")
    print("| work | by | seconds | x of run-batch | cached tokens | engine | beside it |")
    print("|---|---|---|---|---|---|---|")
    for work in works:
        print("\n".join(rows(work, results[work.name])))
    reported = {
        work: {name: [each.seconds for each in runs] for name, runs in by.items()}
        for work, by in results.items()
    }
    print(json.dumps(reported))
    return 0


if __name__ == "__main__":
    sys.exit(main())
