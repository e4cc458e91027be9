"""What goes on while the demo runs: live calls in waves, and batches that follow one another.

Bounded: at most LIVE_AT_ONCE calls at a time, and at most KEPT batches of its own; older ones are
deleted.
"""

import asyncio
import math
import random
from contextlib import suppress
from typing import Any, Final

import httpx

from testkit.demo.client import DemoClient
from testkit.demo.processes import Processes
from testkit.demo.requests import LARGE, SMALL, UNSERVED, essays, reviews

LIVE_AT_ONCE: Final = 24
WAVE_S: Final = 240.0
"""Seconds from one rush of live calls to the next."""
CALLS_PER_S: Final = (0.4, 5.0)
"""Live calls a second in the quiet, and at the height of a rush."""
POLL_S: Final = 15.0
KEPT: Final = 6


def present(client: DemoClient) -> None:
    """Batches of now, one of each state that does not last by itself."""
    client.submit("papers.jsonl", essays(40_000, LARGE, seed=11), name="Abstracts of 40,000 papers",
                  team="library")  # fmt: skip
    held = client.submit("archive.jsonl", essays(600, SMALL, seed=12), name="Archive, first pass")
    client.wait_until(held, "in_progress")
    client.call("POST", f"/v1/batches/{held}/pause", {})
    client.submit("frontier-2.jsonl", essays(40, UNSERVED), name="Compare with DeepSeek, again")
    client.submit("nightly-1.jsonl", essays(1200, SMALL, seed=13), name="Nightly summaries")
    done = client.submit("reviews-today.jsonl", reviews(90, seed=14), name="Reviews of today")
    client.wait_until(done, "completed")


async def keep_going(client: DemoClient, processes: Processes) -> None:
    """Goes on until it is cancelled, or until a process of the demo has ended."""
    async with asyncio.TaskGroup() as group:
        live = group.create_task(_live_calls(client.address))
        turns = group.create_task(_turns(client))
        while not processes.dead():  # noqa: ASYNC110 - no event tells of the end of a child
            await asyncio.sleep(1.0)
        live.cancel()
        turns.cancel()


async def _live_calls(address: str) -> None:
    chance, calls, at = random.Random(7), set[asyncio.Task[None]](), 0.0
    bounds = httpx.Limits(max_connections=LIVE_AT_ONCE)
    async with httpx.AsyncClient(base_url=address, timeout=120.0, limits=bounds) as http:
        while True:
            low, high = CALLS_PER_S
            height = (1 - math.cos(2 * math.pi * at / WAVE_S)) / 2
            pause = chance.expovariate(low + (high - low) * height)
            await asyncio.sleep(pause)
            at += pause
            if len(calls) < LIVE_AT_ONCE:
                call = asyncio.create_task(_live_call(http, chance))
                calls.add(call)
                call.add_done_callback(calls.discard)


async def _live_call(http: httpx.AsyncClient, chance: random.Random) -> None:
    body: dict[str, Any] = {
        "model": chance.choice((LARGE, SMALL)),
        "messages": [{"role": "user", "content": "When is low tide? " * chance.randrange(1, 60)}],
        "max_tokens": chance.randrange(20, 160),
        "stream": True,
    }
    with suppress(httpx.HTTPError):
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for _ in answer.aiter_bytes():
                pass


async def _turns(client: DemoClient) -> None:
    """A large file to validate, then a short batch, again and again."""
    own: list[str] = []
    for turn in range(1_000_000):
        await asyncio.sleep(POLL_S)
        with suppress(httpx.HTTPError):
            await asyncio.to_thread(_turn, client, turn, own)


def _turn(client: DemoClient, turn: int, own: list[str]) -> None:
    if turn % 4 == 0:
        content = essays(40_000, LARGE, seed=turn)
        own.append(client.submit("corpus-large.jsonl", content, name="Corpus, only to be checked"))
    elif turn % 4 == 1:
        client.call("POST", f"/v1/batches/{own[-1]}/cancel")
    else:
        more = reviews(150, seed=turn, failing=30 if turn % 8 == 2 else 0)
        own.append(client.submit(f"reviews-{turn:04d}.jsonl", more, name=f"Reviews, part {turn}"))
    while len(own) > KEPT:
        client.call("DELETE", f"/v1/batches/{own.pop(0)}")
