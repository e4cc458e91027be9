"""Interactive calls through the whole product: beside batch work, and on a real engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import together
from product_env import CHAT, RuledEngine, ask, asks, open_house, replica

from lowtide.cli.server.listening import address_of, bind, listening
from lowtide.config import LimitSettings, ServerSettings, Settings
from lowtide.wiring import EmbeddedModel, open_application
from testkit.scripted_engine import Answer, Cut

pytestmark = pytest.mark.usefixtures("full_window")

WINDOW = 4
CALLS = 5  # a minute: slow enough that none comes back while a test uses them up
TOKENS = 2_000
MESSAGES: Any = [{"role": "user", "content": "Hello"}]


def holds_batch_work(text: str, _: int) -> Answer | None:
    """Calls of batches never end; `live` ones are answered at once."""
    return None if text.startswith("live") else (Cut.HANG,)


@pytest.fixture
async def engine() -> AsyncIterator[RuledEngine]:
    async with RuledEngine() as running:
        yield running


async def call(http: httpx.AsyncClient) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": "live"}], "max_tokens": 8}
    return await http.post(CHAT, json=body)


def standing(answer: httpx.Response) -> tuple[int, str]:
    """What a caller may still do; tokens apart, which come back by the second."""
    assert TOKENS - int(answer.headers["x-ratelimit-remaining-tokens"]) < CALLS * 50
    return answer.status_code, answer.headers["x-ratelimit-remaining-requests"]


async def use_up(http: httpx.AsyncClient) -> list[tuple[int, str]]:
    return [standing(await call(http)) for _ in range(CALLS + 2)]


async def test_no_amount_of_batch_work_changes_what_a_live_caller_may_do(
    tmp_path: Path, engine: RuledEngine
) -> None:
    bounds = LimitSettings(live_requests_per_minute=CALLS, live_tokens_per_minute=TOKENS)
    async with open_house(
        tmp_path / "idle", [replica(engine, window=WINDOW)], limits=bounds
    ) as env:
        alone = await use_up(env.http)
    engine.rule, seen = holds_batch_work, len(engine.requests)
    async with open_house(
        tmp_path / "busy", [replica(engine, window=WINDOW)], limits=bounds
    ) as env:
        for _ in range(5):
            await env.start(asks(200))
        await engine.saw(lambda: len(engine.requests) >= seen + WINDOW)  # the window is full
        beside = await use_up(env.http)
        engine.rule = lambda _text, _count: None  # calls that never end would hold up the end,
        engine.cut_connections()  # and so would those that are sent again
    assert beside == alone
    assert [status for status, _ in alone].count(200) == CALLS


async def test_no_amount_of_live_traffic_changes_what_a_batch_may_do(
    tmp_path: Path, engine: RuledEngine
) -> None:
    bounds = LimitSettings(
        live_requests_per_minute=CALLS,
        live_tokens_per_minute=TOKENS,
        enqueued_tokens_per_model=10_000,
        batches_per_hour=2,
        requests_in_flight=WINDOW,
    )
    async with open_house(tmp_path, [replica(engine, window=WINDOW)], limits=bounds) as env:
        assert (await use_up(env.http))[-1][0] == 429
        for _ in range(2):
            batch = await env.start(asks(50))
            assert (await env.end(batch))["status"] == "completed"
            output, errors = await env.results(batch)
            assert (len(output), errors) == (50, [])
        assert (await call(env.http)).status_code == 429


async def test_live_calls_take_no_place_in_the_window(tmp_path: Path, engine: RuledEngine) -> None:
    engine.rule = lambda text, _: (Cut.HANG,) if text.startswith("live") else None
    async with open_house(tmp_path, [replica(engine, window=1)]) as env:
        calls = [asyncio.create_task(call(env.http)) for _ in range(3)]
        await engine.saw(lambda: engine.asked["live"] == 3)
        batch = await env.start([ask(1), ask(2)])
        assert (await env.end(batch))["status"] == "completed"
        for held in calls:
            held.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await engine.saw_abandoned(3)


# ---- the embedded engine ----


@pytest.fixture
async def own_model(tmp_path: Path) -> AsyncIterator[str]:
    """The address of a server with the random model."""
    settings = Settings(server=ServerSettings(data_dir=tmp_path))
    embedded = EmbeddedModel("random", threads=1)
    bound = bind("127.0.0.1", 0)
    async with open_application(settings, embedded=embedded) as application:
        assert application.asgi is not None
        async with listening(application.asgi, bound):
            yield address_of(bound)


async def test_the_openai_sdk_chats_with_the_embedded_engine_streamed_and_not(
    own_model: str,
) -> None:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{own_model}/v1", max_retries=0) as client:
        answer = await client.chat.completions.create(
            model="random", messages=MESSAGES, max_tokens=12, seed=1, temperature=0
        )
        stream = await client.chat.completions.create(
            model="random",
            messages=MESSAGES,
            max_tokens=12,
            seed=1,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == answer.choices[0].message.content
    assert len(chunks) > 3
    assert answer.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens


async def test_the_together_sdk_streams_from_the_embedded_engine(own_model: str) -> None:
    async with together.AsyncTogether(api_key="k", base_url=own_model, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="random", messages=MESSAGES, max_tokens=12, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert any(chunk.choices and chunk.choices[0].delta.content for chunk in chunks)
