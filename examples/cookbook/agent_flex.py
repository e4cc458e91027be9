"""Agents that call a model step by step, at the price of a batch: `service_tier: "flex"`.

    python examples/cookbook/agent_flex.py

Each agent writes a text, criticizes it and writes it again: three calls, of which each needs the
answer of the one before, so they cannot stand in one batch file. Four agents run at once. The
server's address is LOWTIDE_SERVER, or http://127.0.0.1:8000.
"""

import asyncio
import os

from openai import AsyncOpenAI

MODEL = "demo"
WAIT_S = 900  # how long the server holds a flex call; the client's own ten minutes are too short
SUBJECTS = ("a lighthouse", "a lamp", "a boat", "a storm")


async def ask(client: AsyncOpenAI, prompt: str) -> str:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=40,
        temperature=0,
        service_tier="flex",
        timeout=WAIT_S,
    )
    assert answer.service_tier == "flex", "this was charged as a live call"
    return " ".join((answer.choices[0].message.content or "").split())


async def agent(client: AsyncOpenAI, subject: str) -> str:
    draft = await ask(client, f"Write one sentence about {subject}.")
    critique = await ask(client, f"What could be better in this sentence? {draft}")
    return await ask(client, f"Sentence: {draft} Critique: {critique} Write a better sentence.")


async def main() -> None:
    address = os.environ.get("LOWTIDE_SERVER", "http://127.0.0.1:8000")
    key = os.environ.get("LOWTIDE_API_KEY", "none")
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key=key) as client:
        texts = await asyncio.gather(*(agent(client, subject) for subject in SUBJECTS))
    for subject, text in zip(SUBJECTS, texts, strict=True):
        print(f"{subject}: {text}")
    print(f"{len(SUBJECTS)} agents, {3 * len(SUBJECTS)} calls at the price of a batch")


if __name__ == "__main__":
    asyncio.run(main())
