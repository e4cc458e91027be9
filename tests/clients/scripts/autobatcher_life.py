"""autobatcher: single calls gathered into batches, and results taken while a batch still runs."""

import asyncio
import json
import os
import time
from collections import Counter
from typing import Any

import httpx
from autobatcher import BatchOpenAI
from checks import MODEL, check

QUICK, SLOW = 30, 3
SLOW_S = 4
BASE = os.environ["OPENAI_BASE_URL"]


class Downloads:
    """Every answer to the client's raw requests for results: its two headers and its lines."""

    def __init__(self) -> None:
        self.seen: list[tuple[str | None, str | None, list[str]]] = []

    async def note(self, response: httpx.Response) -> None:
        await response.aread()
        ids = [json.loads(line)["custom_id"] for line in response.text.splitlines()]
        headers = response.headers
        self.seen.append((headers.get("x-incomplete"), headers.get("x-last-line"), ids))


async def ask(client: BatchOpenAI, text: str) -> tuple[str, str, float]:
    messages: list[Any] = [{"role": "user", "content": text}]
    answer = await client.chat.completions.create(model=MODEL, messages=messages)
    return text, str(answer.choices[0].message.content), time.monotonic()


async def partial_results(base: str) -> None:
    downloads, events = Downloads(), []
    client = BatchOpenAI(
        api_key="key", base_url=base, batch_window_seconds=0.5, poll_interval_seconds=0.2,
        completion_window="24h", batch_event_handler=events.append,
    )  # fmt: skip
    client._http_client.event_hooks["response"].append(downloads.note)
    quick = [f"quick {n}" for n in range(QUICK)]
    slow = [f"wait {SLOW_S} slow {n}" for n in range(SLOW)]
    results = await asyncio.gather(*(ask(client, text) for text in quick + slow))
    await client.close()

    check("each caller has the answer to its own question", all(a == f"echo: {t}" for t, a, _ in results))  # fmt: skip # noqa: E501
    check("one batch was enough", [e["event"] for e in events].count("batch_submitted") == 1)
    instants = {text: at for text, _, at in results}
    first_slow = min(instants[text] for text in slow)
    early = sum(instants[text] < first_slow - SLOW_S / 2 for text in quick)
    check(f"{early} of {QUICK} came while the batch still ran", early == QUICK)
    check("such answers say so", any(incomplete == "true" for incomplete, _, _ in downloads.seen))
    check("the last says the end", downloads.seen[-1][0] == "false")
    got = Counter(custom_id for _, _, ids in downloads.seen for custom_id in ids)
    check("no result came twice", set(got.values()) == {1})
    check("none was lost", len(got) == QUICK + SLOW)
    counted = 0
    for _, last_line, ids in downloads.seen:
        counted += len(ids)
        check("X-Last-Line counts all so far", last_line == str(counted))


async def embeddings() -> None:
    client = BatchOpenAI(
        api_key="key", base_url=BASE, batch_window_seconds=0.2, poll_interval_seconds=0.2
    )
    made = await client.embeddings.create(model=MODEL, input="some words")
    await client.close()
    check("embeddings go by batches, too", len(made.data[0].embedding) == 16)


asyncio.run(partial_results(BASE))
asyncio.run(partial_results(BASE.removesuffix("/v1") + "/openai/v1"))
asyncio.run(embeddings())
