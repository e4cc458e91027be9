"""What runs on a real engine: live calls, a client with a fixed window, and Lowtide with a batch.

Called by bench/live_traffic/real.py. Prompts begin with words of their own, so that a prefix cache
helps nobody but a batch call that gave way and comes again.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx

from bench.processes import serving
from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.core.faults.streamed_answer import StreamedAnswer
from lowtide.core.usage import usage_of
from lowtide.engines.http.client import HttpEngine

LINES: Final = 20_000
FILE_BYTES: Final = 64_000_000
"""No batch has more lines, or a larger file: none is worked off in the minute of a run."""
CALL_S: Final = 120.0
CONNECTIONS: Final = 256
LIVE_WORDS: Final = (20, 200)
BATCH_TOKENS: Final = (16, 128)
PATH: Final = "/chat/completions"
ENDPOINT: Final = "/v1/chat/completions"
WORDS: Final = "tell me of the sea count waves that went far away over blue water".split()  # noqa: SIM905

Meter = Callable[[], Awaitable[int]]
"""Tokens of prompts and answers that a batch has finished so far."""


@dataclass(frozen=True)
class Target:
    """An engine that runs."""

    url: str
    model: str
    api_key: str | None = None


@dataclass(frozen=True)
class Traffic:
    """What is asked of it. `seed` gives the instants and lengths, `mark` makes the prompts new,
    `more` goes into each body.
    """

    rate: float
    live_tokens: int
    batch_words: tuple[int, int]
    seed: int
    mark: str
    batch_tokens: tuple[int, int] = BATCH_TOKENS
    more: Mapping[str, Any] = field(default_factory=dict)

    def live_bodies(self, model: str) -> Iterator[bytes]:
        """Without end, one for each live call."""
        rng = random.Random(self.seed)
        while True:
            asked = self._body(model, rng, LIVE_WORDS, self.live_tokens)
            yield json.dumps({**asked, "stream": True}).encode()

    def batch_bodies(self, model: str) -> Iterator[dict[str, Any]]:
        """Without end, one for each line."""
        rng = random.Random(self.seed + 1)
        while True:
            yield self._body(model, rng, self.batch_words, rng.randint(*self.batch_tokens))

    def _body(
        self, model: str, rng: random.Random, words: tuple[int, int], tokens: int
    ) -> dict[str, Any]:
        said = " ".join(rng.choices(WORDS, k=rng.randint(*words)))
        content = f"{self.mark} {rng.getrandbits(40):x} {said}"
        message = {"role": "user", "content": content}
        return {"model": model, "messages": [message], "max_tokens": tokens, **self.more}


@contextmanager
def house(folder: Path, target: Target, **switches: bool) -> Iterator[str]:
    """`lowtide serve` over a fresh folder, with that engine as its one replica, of which `switches`
    are settings; its address.
    """
    folder.mkdir(parents=True)
    key = f"api_key = {json.dumps(target.api_key)}\n" if target.api_key else ""
    settings = (
        "[limits]\nenqueued_tokens_per_model = 1000000000\n"
        f"[[replica]]\nurl = {json.dumps(target.url)}\nmodels = [{json.dumps(target.model)}]\n"
        + key
        + "".join(f"{name} = {json.dumps(is_on)}\n" for name, is_on in switches.items())
    )
    with serving(folder, settings) as server:
        yield server.address


async def live_calls(
    proxied: HttpEngine, bodies: Iterator[bytes], rng: random.Random, rate: float, seconds: float
) -> tuple[list[float], list[float]]:
    """Poisson arrivals, whether or not earlier calls have ended: first tokens, gaps; in seconds."""
    began, due = time.perf_counter(), rng.expovariate(rate)
    async with asyncio.TaskGroup() as group:
        calls = []
        while due < seconds:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            calls.append(group.create_task(_live_call(proxied, next(bodies))))
            due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
    return [call.result()[0] for call in calls], [gap for call in calls for gap in call.result()[1]]


async def _live_call(proxied: HttpEngine, body: bytes) -> tuple[float, list[float]]:
    """Seconds to the first event with a token, and the gaps between the blocks after it."""
    began = time.perf_counter()
    instants = [instant async for instant in token_instants(proxied, body)]
    if not instants:
        return 0.0, []
    return instants[0] - began, [later - before for before, later in pairwise(instants)]


async def token_instants(engine: HttpEngine, body: bytes) -> AsyncIterator[float]:
    """When the first event with a token came of a streamed call, and when each block after it.
    Raises RuntimeError for a call that is refused, or breaks.
    """
    answer = StreamedAnswer()
    async with engine.open_stream(PATH, body, CALL_S) as reply:
        if isinstance(reply, NoReply) or reply.status != 200:
            raise RuntimeError(f"no stream: {reply}")
        while block := await reply.read():
            if isinstance(block, NoReply):
                raise RuntimeError(f"the stream broke: {block}")
            if not answer.has_begun:
                answer.feed(block)
                if not answer.has_begun:
                    continue  # the role, which an engine may send before it has read the prompt
            yield time.perf_counter()


@asynccontextmanager
async def fixed_window(
    target: Target, traffic: Traffic, window: int, priority: int | None = None
) -> AsyncIterator[Meter]:
    """What a script does: that many whole calls in flight at the engine, always."""
    more = {} if priority is None else {"priority": priority}
    engine = HttpEngine(target.url, api_key=target.api_key, connections_max=window)
    bodies = traffic.batch_bodies(target.model)
    done = 0

    async def work() -> None:
        nonlocal done
        while True:
            asked = json.dumps({**next(bodies), **more}).encode()
            answer = await engine.post(PATH, asked, CALL_S)
            if isinstance(answer, Reply) and answer.status == 200:
                usage = usage_of(answer.body)
                done += usage.total_tokens if usage is not None else 0
            else:
                await asyncio.sleep(0.5)

    async def meter() -> int:
        return done

    workers = [asyncio.create_task(work()) for _ in range(window)]
    try:
        yield meter
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await engine.aclose()


@asynccontextmanager
async def lowtide_batch(
    address: str, folder: Path, target: Target, traffic: Traffic
) -> AsyncIterator[Meter]:
    """A batch that does not run out, from its first finished line on."""
    path = folder / "batch.jsonl"
    with path.open("w") as written:
        for number, asked in zip(range(LINES), traffic.batch_bodies(target.model), strict=False):
            line = {"custom_id": f"r{number}", "method": "POST", "url": ENDPOINT, "body": asked}
            written.write(json.dumps(line) + "\n")
            if written.tell() > FILE_BYTES:
                break
    async with httpx.AsyncClient(base_url=address, timeout=CALL_S) as server:
        with path.open("rb") as file:
            fields = {"purpose": "batch"}
            uploaded = await server.post("/v1/files", files={"file": file}, data=fields)
        asked = {
            "input_file_id": uploaded.raise_for_status().json()["id"],
            "endpoint": ENDPOINT,
            "completion_window": "24h",
        }
        made = (await server.post("/v1/batches", json=asked)).raise_for_status().json()

        async def meter() -> int:
            seen = (await server.get(f"/v1/batches/{made['id']}")).raise_for_status().json()
            if seen["status"] not in ("validating", "in_progress"):
                raise RuntimeError(f"the batch is {seen['status']}: {seen['errors']}"[:500])
            return int(seen["usage"]["total_tokens"])

        while not await meter():  # noqa: ASYNC110 - nothing tells but asking
            await asyncio.sleep(0.2)
        yield meter
        await server.post(f"/v1/batches/{made['id']}/cancel")
