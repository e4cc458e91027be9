"""Measure what an engine's prompt cache saves when requests that begin alike follow each other.

    python examples/cookbook/prefix_order.py write judge.jsonl
    python examples/cookbook/prefix_order.py send judge.jsonl http://127.0.0.1:9001/v1
    python examples/cookbook/prefix_order.py count results.jsonl

`write` makes 320 requests to a judge: 40 grading prompts of some 1,500 tokens, each for 8
answers, in a random order. `send` sends them to an engine in the order of the file, 16 at a time,
as a script of one's own would. `count` reads the results of the same file through Lowtide.
"""

import asyncio
import json
import random
import sys
from pathlib import Path

import httpx

RUBRICS, ANSWERS, IN_FLIGHT = 40, 8, 16
MODEL = "judge"


def write(path: str) -> None:
    lines = []
    for rubric in range(RUBRICS):
        rules = " ".join(f"Rule {n} of rubric {rubric}: look at aspect {n}." for n in range(150))
        for answer in range(ANSWERS):
            messages = [
                {"role": "system", "content": rules},
                {"role": "user", "content": f"Grade answer {answer}."},
            ]
            body = {"model": MODEL, "messages": messages, "max_tokens": 4}
            lines.append(json.dumps({"custom_id": f"{rubric}-{answer}", "body": body}))
    random.Random(7).shuffle(lines)
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} requests with {RUBRICS} different beginnings")


async def send(bodies: list[dict], url: str) -> None:
    room = asyncio.Semaphore(IN_FLIGHT)

    async def ask(client: httpx.AsyncClient, body: dict) -> dict:
        async with room:
            answer = await client.post(f"{url}/chat/completions", json=body)
            usage: dict = answer.raise_for_status().json()["usage"]
            return usage

    async with httpx.AsyncClient(timeout=600) as client:
        report(await asyncio.gather(*(ask(client, body) for body in bodies)))


def count(path: str) -> None:
    results = map(json.loads, Path(path).read_text().splitlines())
    report([result["response"]["body"]["usage"] for result in results])


def report(usages: list) -> None:
    prompt = sum(usage["prompt_tokens"] for usage in usages)
    cached = sum((usage.get("prompt_tokens_details") or {})["cached_tokens"] for usage in usages)
    print(f"{prompt:,} prompt tokens, of which the engine had {cached / prompt:.0%} in its cache")


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "send":
        path, url = arguments
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        asyncio.run(send([json.loads(line)["body"] for line in lines], url))
    else:
        {"write": write, "count": count}[verb](*arguments)
