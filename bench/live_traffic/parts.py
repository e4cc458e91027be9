"""Long batch prompts in parts against whole ones, on a vLLM on the CPU, in six minutes.

    python -m bench.live_traffic.parts --vllm PYTHON [--rounds 3] [--seconds 25]

Lowtide beside live calls with `prompt_parts` true and false, on a vLLM with a random Llama and
steps of 8,192 tokens (`--vllm` is the Python of its environment). The two take turns, and the one
that came second begins the next round. Prints a table, the ratio of each pair, and one JSON line. A
word is a token, so a prompt has so many as `--batch-words` says.
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Final

from bench.live_traffic.real import WHOLE, Run
from bench.live_traffic.real_traffic import WORDS
from bench.live_traffic.watched import VLLM, report, rounds, vllm_of

FLAGS: Final = (
    "--max-num-batched-tokens 8192 --max-num-seqs 64 --max-model-len 8192 --enforce-eager "
    "--load-format dummy"
)


async def measure(asked: argparse.Namespace, folder: Path) -> list[Run]:
    async with vllm_of(asked, folder, FLAGS, WORDS) as target:
        return await rounds(VLLM, target, asked, folder / "vllm", WHOLE)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.live_traffic.parts", description=__doc__)
    parser.add_argument("--vllm", required=True, help="Python of an environment with vLLM")
    parser.add_argument("--layers", type=int, default=4, help="of the random Llama")
    parser.add_argument("--rate", type=float, default=1.0, help="live calls a second")
    parser.add_argument("--live-tokens", type=int, default=32, help="of each live answer")
    parser.add_argument("--batch-words", type=int, nargs=2, default=(600, 2400), help="of a prompt")
    parser.add_argument("--seconds", type=float, default=25.0, help="of each run")
    parser.add_argument("--warm-up", type=float, default=12.0, help="before each run, in seconds")
    parser.add_argument("--rounds", type=int, default=3, help="of the pair")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        runs = asyncio.run(measure(asked, Path(name)))
    report(runs, "in parts over whole", WHOLE)
    print(json.dumps({"bench": "prompt_parts", "options": vars(asked), "runs": runs}))


if __name__ == "__main__":
    main()
