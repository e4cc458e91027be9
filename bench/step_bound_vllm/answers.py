"""Whether the class changes answers more than vLLM's own runs differ from each other.

Greedy calls of mixed lengths are sent together, every fourth of them live and the others with batch
priority: to the engine without the class, with it, and to both once more. Which calls share a step
decides in what order a kernel sums, so even two runs of one engine differ in a few answers.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.live_traffic.real_traffic import CALL_S, WORDS
from bench.step_bound_vllm.engine import BATCH_PRIORITY, CLASS, STOCK, Engine
from lowtide.core.faults.outcome import Reply
from lowtide.engines.http.client import HttpEngine

LIVE_EVERY: Final = 4
PROMPT_WORDS: Final = (4, 130)
ANSWER_TOKENS: Final = (8, 96)
PLAN: Final = ((STOCK, "stock"), (CLASS, "class"), (STOCK, "stock again"), (CLASS, "class again"))
PAIRS: Final = (
    ("stock", "stock again"),
    ("class", "stock"),
    ("class again", "stock"),
    ("class", "class again"),
)


def takes_s(asked: argparse.Namespace) -> float:
    return float(len(PLAN) * asked.answers * asked.answer_s)


async def answers(both: Mapping[str, Engine], asked: argparse.Namespace) -> dict[str, Any]:
    """For each pair of runs, how many answers are the same, token for token; and for each run, how
    many have the length that was asked. Raises RuntimeError for a call that fails.
    """
    calls = _calls(asked.answers)
    runs = {run: await _run(both[name], calls) for name, run in PLAN}
    lengths = [call["max_tokens"] for call in calls]
    return {
        "calls": len(calls),
        "live": len(calls[::LIVE_EVERY]),
        "of_asked_length": {run: _same(map(len, tokens), lengths) for run, tokens in runs.items()},
        "same": [[one, other, _same(runs[one], runs[other])] for one, other in PAIRS],
    }


def _calls(count: int) -> list[dict[str, Any]]:
    """Without what makes them new to the prefix cache in each run."""
    rng, calls = random.Random(11), []
    for number in range(count):
        words = rng.choices(WORDS, k=rng.randint(*PROMPT_WORDS))
        asked = {
            "prompt": f"{number} {' '.join(words)}",
            "max_tokens": rng.randint(*ANSWER_TOKENS),
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            "priority": BATCH_PRIORITY if number % LIVE_EVERY else 0,
        }
        calls.append(asked)
    return calls


async def _run(engine: Engine, calls: Sequence[dict[str, Any]]) -> list[list[int]]:
    """The tokens of each answer, of one time that all are sent together."""
    http = HttpEngine(engine.target.url, connections_max=len(calls))
    more = {"model": engine.target.model, "cache_salt": f"{time.time_ns():x}"}

    async def tokens_of(call: dict[str, Any]) -> list[int]:
        answer = await http.post("/completions", json.dumps(call | more).encode(), CALL_S)
        if not isinstance(answer, Reply) or answer.status != 200:
            raise RuntimeError(f"no answer: {answer}")
        return list(json.loads(answer.body)["choices"][0]["token_ids"])

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(tokens_of(call)) for call in calls]
    finally:
        await http.aclose()
    return [task.result() for task in tasks]


def _same(some: Any, others: Any) -> int:
    return sum(one == other for one, other in zip(some, others, strict=True))
