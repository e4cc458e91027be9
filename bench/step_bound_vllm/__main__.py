"""vLLM with and without the scheduler class, live calls beside a batch, in real time.

    python -m bench.step_bound_vllm --vllm build/vllm/bin/python [--model NAME] [--device cpu]

Two vLLM servers run side by side from begin to end, one with vLLM's scheduler and one with the
class; only one is called at a time, and they take turns, so that a slow minute of the machine falls
on both. Prints a table of what live users felt and what the batch got, how long batch calls wait
beside live calls that never stop, the throughput of a batch alone in pairs, whether answers stay
the same, what became of a batch whose engine was killed, and one JSON line. It says beforehand how
long it takes and ends within `--time-limit`; what no longer fits, as where a large model starts
slowly, is left out and named. `--vllm` is the Python of an environment with vLLM 0.32 and this
tree's wheel; without `--model` a small random Llama is made.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.step_bound_vllm import alone, answers, killed, rows, starvation
from bench.step_bound_vllm.engine import CLASS, check_wheel, engines, run_to_end
from bench.step_bound_vllm.report import show
from bench.step_bound_vllm.time_limit import TimeLimit

PARTS: Final = ("rows", "starvation", "alone", "answers", "killed")
END_S: Final = 15.0
"""Kept for ending the servers."""
DEFAULTS: Final = {
    "cpu": {
        "flags": "--max-num-batched-tokens 2048 --max-num-seqs 64 --max-model-len 4096 "
        "--enforce-eager",
        "start_s": 60.0, "layers": 4, "rate": 2.0, "window": 32, "answer_s": 0.15,
        "kill_lines": 100, "live_streams": 2, "seconds": 20.0, "pairs": 12,
    },
    "gpu": {
        "flags": "--gpu-memory-utilization 0.42 --max-model-len 4096",
        "start_s": 75.0, "layers": 16, "rate": 10.0, "window": 256, "answer_s": 0.05,
        "kill_lines": 2000, "live_streams": 8, "seconds": 15.0, "pairs": 8,
    },
}  # fmt: skip
"""`start_s`: of one server on a GPU, where they start one after the other; of both on a CPU."""


def expected_s(asked: argparse.Namespace) -> dict[str, float]:
    """Seconds that each part takes, in the order in which they are done."""
    parts = {part.__name__.rpartition(".")[2]: part.takes_s(asked) for part in _modules()}
    starts = 2 if asked.device == "gpu" else 1
    return {"start": starts * asked.start_s} | {name: parts[name] for name in asked.parts}


def _modules() -> tuple[Any, ...]:
    return (rows, starvation, alone, answers, killed)


async def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All parts that fit into the time, None for one that was left out. Raises RuntimeError where a
    server does not start.
    """
    began, expected = time.monotonic(), expected_s(asked)
    found: dict[str, Any] = dict.fromkeys(PARTS)
    async with engines(asked, folder) as both:
        up_s = time.monotonic() - began
        print(f"both servers are up after {up_s:.0f} s", file=sys.stderr, flush=True)
        limit = TimeLimit(asked.time_limit - up_s - END_S)
        do = {
            "rows": lambda: rows.rows(both, asked, folder),
            "starvation": lambda: starvation.starvation(both, asked),
            "alone": lambda: alone.alone(both, asked),
            "answers": lambda: answers.answers(both, asked),
            "killed": lambda: killed.killed(both[CLASS], asked, folder),
        }
        for name in asked.parts:
            found[name] = await limit.run(name, expected[name], do[name])
    return found | {
        "left_out": limit.left_out,
        "seconds": round(time.monotonic() - began),
        "load": os.getloadavg()[0],
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.step_bound_vllm", description=__doc__)
    parser.add_argument("--vllm", required=True, help="Python of the environment with vLLM")
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--model", help="a folder or a name; else a random Llama")
    parser.add_argument("--layers", type=int, help="of the random Llama")
    parser.add_argument("--flags", help="of both servers, instead of the defaults")
    parser.add_argument("--start-s", type=float, help="that a server is expected to start in")
    parser.add_argument("--rate", type=float, help="live calls a second")
    parser.add_argument("--live-tokens", type=int, default=64, help="of each live answer")
    parser.add_argument("--live-streams", type=int, help="live calls that never stop")
    parser.add_argument("--batch-words", type=int, nargs=2, default=(100, 600), help="of a prompt")
    parser.add_argument("--window", type=int, help="batch calls in flight")
    parser.add_argument("--seconds", type=float, help="of each row")
    parser.add_argument("--warm-up", type=float, default=5.0, help="before each row, in seconds")
    parser.add_argument("--rounds", type=int, default=1, help="of all rows")
    parser.add_argument("--pairs", type=int, help="of a batch alone, an even number")
    parser.add_argument("--stretch", type=float, default=3.0, help="seconds of one of a pair")
    parser.add_argument("--answers", type=int, default=60, help="calls that are compared")
    parser.add_argument("--answer-s", type=float, help="that one of them is expected to take")
    parser.add_argument("--kill-lines", type=int, help="of the batch whose engine is killed")
    parser.add_argument("--time-limit", type=float, default=600.0, help="of all, in seconds")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to do")
    asked = parser.parse_args()
    for name, value in DEFAULTS[asked.device].items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    if asked.model is None:
        asked.flags += " --load-format dummy"
    return asked


def main() -> None:
    asked = arguments()
    check_wheel(asked.vllm)
    expected = expected_s(asked)
    reported = ", ".join(f"{name} {seconds:.0f}" for name, seconds in expected.items())
    print(
        f"It takes {sum(expected.values()) + END_S:.0f} s ({reported}) and ends after "
        f"{asked.time_limit:.0f} s.",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        found = run_to_end(measure(asked, Path(name)))
    show(found)
    print(json.dumps({"bench": "step_bound_vllm", "options": vars(asked), **found}))


if __name__ == "__main__":
    main()
