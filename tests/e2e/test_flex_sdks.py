"""Flex calls and background responses through the SDKs that people have, unchanged."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import together
from flex_env import FlexEnv, open_flex

from testkit.echo_engine import EchoEngine, running_echo_engine
from testkit.patience import PATIENCE_S

MESSAGES: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def engine() -> Iterator[EchoEngine]:
    with running_echo_engine() as running:
        yield running


@pytest.fixture
async def env(tmp_path: Path, engine: EchoEngine) -> AsyncIterator[FlexEnv]:
    async with open_flex(tmp_path, engine) as running:
        yield running


@pytest.fixture
async def client(env: FlexEnv) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{env.url}/v1"
    async with openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0) as sdk:
        yield sdk


async def until(client: openai.AsyncOpenAI, response_id: str, *statuses: str) -> Any:
    """The response once it is in one of these states, polled as OpenAI's guide does."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seen = await client.responses.retrieve(response_id)
            if seen.status in statuses:
                return seen
            assert seen.status in ("queued", "in_progress")
            await asyncio.sleep(0.05)


async def ended(client: openai.AsyncOpenAI, response_id: str) -> Any:
    return await until(client, response_id, "completed", "failed", "cancelled", "incomplete")


async def test_openai_chats_at_the_flex_tier(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="m", messages=MESSAGES, service_tier="flex", timeout=900
    )
    assert answer.choices[0].message.content == "echo: Hello"
    assert answer.service_tier == "flex"


async def test_openai_streams_a_chat_at_the_flex_tier(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="m",
        messages=MESSAGES,
        service_tier="flex",
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "echo: Hello"
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 4
    assert chunks[0].service_tier == "flex"


async def test_openai_responds_at_the_flex_tier(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="m", input="Hello", service_tier="flex")
    assert (answer.output_text, answer.service_tier) == ("echo: Hello", "flex")


async def test_openai_hears_that_there_is_no_capacity(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        await client.chat.completions.create(
            model="unserved", messages=MESSAGES, service_tier="flex"
        )
    assert refused.value.code == "resource_unavailable"


async def test_together_chats_at_the_flex_tier(env: FlexEnv) -> None:
    async with together.AsyncTogether(api_key="k", base_url=env.url, max_retries=0) as sdk:
        answer = await sdk.chat.completions.create(
            model="m", messages=MESSAGES, extra_body={"service_tier": "flex"}
        )
    message = answer.choices[0].message
    assert message is not None and message.content == "echo: Hello"
    assert (await env.batches())[0].flex == "awaited"


async def test_openai_makes_a_background_response_and_retrieves_it(
    env: FlexEnv, client: openai.AsyncOpenAI
) -> None:
    made = await client.responses.create(
        model="m", input="Hello", background=True, metadata={"night": "first"}
    )
    assert made.status in ("queued", "in_progress")
    assert made.id.startswith("resp_")
    assert (made.metadata, made.model, made.background) == ({"night": "first"}, "m", True)
    seen = await ended(client, made.id)
    assert (seen.id, seen.status, seen.output_text) == (made.id, "completed", "echo: Hello")
    assert (seen.background, seen.service_tier) == (True, "flex")
    assert (await env.cost()).requests == 1


async def test_openai_cancels_a_background_response(
    env: FlexEnv, client: openai.AsyncOpenAI, engine: EchoEngine
) -> None:
    made = await client.responses.create(model="m", input="wait 60 long", background=True)
    await until(client, made.id, "in_progress")
    assert (await client.responses.cancel(made.id)).status == "cancelled"
    assert (await client.responses.cancel(made.id)).status == "cancelled"
    assert (await client.responses.retrieve(made.id)).status == "cancelled"
    await env.until("cancelled")
    assert (await client.responses.retrieve(made.id)).status == "cancelled"
    assert (await env.cost()).requests == 0


async def test_openai_cannot_cancel_what_is_completed(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model="m", input="x", background=True)
    await ended(client, made.id)
    with pytest.raises(openai.BadRequestError, match="is completed and cannot be cancelled"):
        await client.responses.cancel(made.id)


async def test_openai_hears_why_a_background_response_failed(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model="m", input="refuse too long", background=True)
    seen = await ended(client, made.id)
    assert (seen.status, seen.error.message) == ("failed", "too long")
    assert seen.output == []


async def test_openai_deletes_a_background_response(
    env: FlexEnv, client: openai.AsyncOpenAI
) -> None:
    made = await client.responses.create(model="m", input="x", background=True)
    await ended(client, made.id)
    await client.responses.delete(made.id)
    for call in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            await call(made.id)
    (batch,) = await env.batches()
    assert batch.output_file_id is not None
    with pytest.raises(openai.NotFoundError):
        await client.files.content(batch.output_file_id)


async def test_openai_is_refused_what_no_background_response_has(
    client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError, match="'store' cannot be false"):
        await client.responses.create(model="m", input="x", background=True, store=False)
    with pytest.raises(openai.BadRequestError, match="cannot be streamed"):
        await client.responses.create(model="m", input="x", background=True, stream=True)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("resp_unknown")


async def test_a_repeated_background_call_is_the_one_that_got_no_answer(
    env: FlexEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that has no answer asks again, and says so; one that has it asks for another."""
    again = {"x-stainless-retry-count": "1"}
    body = {"model": "m", "input": "x", "background": True}
    first = (await env.http.post("/v1/responses", json=body)).json()
    second = (await env.http.post("/v1/responses", json=body, headers=again)).json()
    assert first["id"] != second["id"], "the first was answered"
    store: Any = env.application.store
    monkeypatch.setattr(store.batches, "mark_answered", lambda *_: asyncio.sleep(0))
    lost = (await env.http.post("/v1/responses", json=body)).json()
    found = (await env.http.post("/v1/responses", json=body, headers=again)).json()
    another = (await env.http.post("/v1/responses", json=body)).json()
    assert found["id"] == lost["id"]
    assert another["id"] != lost["id"]
