"""Live calls through the SDKs that people have: chat, streamed and not, and the rest."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import together
from live_env import MODEL, SSE_HEAD, USAGE, Env, chunk_of, event, live_house, streamed, wire

from testkit.scripted_engine import Cut, ScriptedEngine, completion, reply

MESSAGES: Any = [{"role": "user", "content": "Hello"}]
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1767225600,
    "status": "completed",
    "model": MODEL,
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hi", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 5,
        "output_tokens": 1,
        "total_tokens": 6,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as scripted:
        yield scripted


@pytest.fixture
async def env(tmp_path: Path, engine: ScriptedEngine) -> AsyncIterator[Env]:
    async with live_house(tmp_path, engine) as running:
        yield running


@pytest.fixture(params=["/v1", "/openai/v1"])
async def client(env: Env, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="k", base_url=f"{env.url}{request.param}", max_retries=0
    ) as sdk:
        yield sdk


@pytest.fixture(params=["", "/together"])
async def together_client(
    env: Env, request: pytest.FixtureRequest
) -> AsyncIterator[together.AsyncTogether]:
    async with together.AsyncTogether(
        api_key="k", base_url=f"{env.url}{request.param}", max_retries=0
    ) as sdk:
        yield sdk


# ---- openai ----


async def test_openai_chats(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content == "ok"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 7
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


async def test_openai_streams_a_chat(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.script(streamed("Hel", "lo")[1])
    stream = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == USAGE["total_tokens"]


async def test_openai_raises_what_ended_a_stream(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.script([SSE_HEAD, wire(event(chunk_of("Hel"))), wire(b'data: {"id'), Cut.CLOSE])
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIError, match="The engine broke off"):
        await anext(stream)


async def test_openai_leaving_a_stream_ends_it_upstream(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.script([SSE_HEAD, wire(event(chunk_of("Hel"))), Cut.HANG])
    async with await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True
    ) as stream:
        await anext(stream)
    await engine.saw_abandoned(1)


async def test_openai_completes_embeds_and_responds(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    text = {"id": "c", "object": "text_completion", "created": 1, "model": MODEL}
    engine.script(
        [reply(text | {"choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}]})],
        [reply({"object": "list", "model": MODEL, "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5]}]})],
        [reply(RESPONSE)],
    )  # fmt: skip
    completed = await client.completions.create(model=MODEL, prompt="x")
    assert completed.choices[0].text == "hi"
    embedded = await client.embeddings.create(model=MODEL, input="x", encoding_format="float")
    assert embedded.data[0].embedding == [0.5]
    responded = await client.responses.create(model=MODEL, input="x")
    assert responded.output_text == "hi"


async def test_openai_streams_a_response(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    delta = {"type": "response.output_text.delta", "delta": "hi", "sequence_number": 1}
    done = {"type": "response.completed", "response": RESPONSE, "sequence_number": 2}
    events = [b"event: %b\n" % str(e["type"]).encode() + event(e) for e in (delta, done)]
    engine.script([SSE_HEAD, *(wire(each) for each in events), b"0\r\n\r\n"])
    stream = await client.responses.create(model=MODEL, input="x", stream=True)
    kinds = [each.type async for each in stream]
    assert kinds == ["response.output_text.delta", "response.completed"]


async def test_openai_hears_of_a_model_that_is_not_there(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="No model named 'nope'") as refused:
        await client.chat.completions.create(model="nope", messages=MESSAGES)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


# ---- together ----


async def test_together_chats(together_client: together.AsyncTogether) -> None:
    answer = await together_client.chat.completions.create(model=MODEL, messages=MESSAGES)
    message = answer.choices[0].message
    assert message is not None
    assert message.content == completion()["choices"][0]["message"]["content"]


async def test_together_streams_a_chat(
    together_client: together.AsyncTogether, engine: ScriptedEngine
) -> None:
    engine.script(streamed("Hel", "lo")[1])
    stream = await together_client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"


async def test_together_raises_what_ended_a_stream(
    together_client: together.AsyncTogether, engine: ScriptedEngine
) -> None:
    engine.script([SSE_HEAD, wire(event(chunk_of("Hel"))), Cut.CLOSE])
    stream = await together_client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True
    )
    await anext(stream)
    with pytest.raises(together.APIError):
        await anext(stream)


async def test_together_embeds_and_hears_of_a_model_that_is_not_there(
    together_client: together.AsyncTogether, engine: ScriptedEngine
) -> None:
    embedding = {"object": "embedding", "index": 0, "embedding": [0.5]}
    engine.script([reply({"object": "list", "model": MODEL, "data": [embedding]})])
    answer = await together_client.embeddings.create(model=MODEL, input="x")
    assert answer.data[0].embedding == [0.5]
    with pytest.raises(together.NotFoundError, match="No model named 'nope'"):
        await together_client.embeddings.create(model="nope", input="x")
