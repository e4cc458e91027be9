"""What an evaluation harness does, pointed at a Lowtide server by two environment variables.

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=none \
        python examples/cookbook/eval_harness.py examples/cookbook/exam.jsonl demo

It asks multiple-choice questions with a few examples before each, many at once, with OpenAI's
client that reads both variables by itself, and compares the letters. `--flex` makes the same
calls at the price of a batch.
"""

import argparse
import asyncio
import json
from pathlib import Path

from openai import AsyncOpenAI

CONNECTIONS = 16  # as a harness has it; the server's own limits on live calls hold besides
WAIT_S = 900
LETTERS = "ABCD"
EXAMPLES = [
    ("Which of these is a fruit?\nA. stone\nB. apple\nC. chair\nD. cloud", "B"),
    ("Which of these can fly?\nA. a fish\nB. a tree\nC. a car\nD. a bird", "D"),
]


def messages_of(item: dict) -> list[dict[str, str]]:
    """The examples are the same for all items, so that the engine reads them once."""
    choices = "\n".join(
        f"{letter}. {c}" for letter, c in zip(LETTERS, item["choices"], strict=True)
    )
    messages = []
    for question, letter in EXAMPLES:
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": letter},
        ]
    return [*messages, {"role": "user", "content": f"{item['question']}\n{choices}"}]


async def main(items: list[dict], model: str, tier: dict[str, str]) -> None:
    room = asyncio.Semaphore(CONNECTIONS)

    async def answer(client: AsyncOpenAI, item: dict) -> str:
        async with room:
            completion = await client.chat.completions.create(
                model=model,
                messages=messages_of(item),
                max_tokens=1,
                temperature=0,
                timeout=WAIT_S,
                extra_body=tier,
            )
            return (completion.choices[0].message.content or "").strip()

    async with AsyncOpenAI() as client:
        letters = await asyncio.gather(*(answer(client, item) for item in items))
    valid = sum(letter in LETTERS for letter in letters if letter)
    correct = sum(letter == item["answer"] for letter, item in zip(letters, items, strict=True))
    print(f"{correct} of {len(items)} correct, {valid} answered with a letter")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("items", type=Path)
    parser.add_argument("model")
    parser.add_argument("--flex", action="store_true")
    told = parser.parse_args()
    exam = [json.loads(line) for line in told.items.read_text(encoding="utf-8").splitlines()]
    asyncio.run(main(exam, told.model, {"service_tier": "flex"} if told.flex else {}))
