"""What answers say, on the demo model, with one engine for all tests.

`make test` installs the model; where it could not (no network), these tests are skipped.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from lowtide.engines.embedded.engine import EmbeddedEngine
from lowtide.engines.models import demo_model
from testkit.patience import PATIENCE_S

Body = dict[str, Any]

MODEL = demo_model.find(Path("no-such-cache"))
pytestmark = [
    pytest.mark.skipif(MODEL is None, reason="the demo model is not installed"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    assert MODEL is not None
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    engine = EmbeddedEngine(
        MODEL, model_id="demo", log_path=log, context=demo_model.CONTEXT_TOKENS, slots=4
    )
    url = await engine.start()
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
        yield client
    await engine.aclose()


async def choice(http: httpx.AsyncClient, text: str, **fields: object) -> Body:
    """The first choice of a chat of one message, with the usage beside it."""
    messages = [{"role": "user", "content": text}]
    reply = await http.post("/chat/completions", json={"messages": messages} | fields)
    assert reply.status_code == 200, reply.text
    answered = reply.json()
    found: Body = answered["choices"][0] | {"usage": answered["usage"]}
    return found


async def test_a_schema_is_obeyed_and_filled_with_what_the_text_says(
    http: httpx.AsyncClient,
) -> None:
    fields = {"name": {"type": "string"}, "age": {"type": "integer"}}
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    text = "Extract the name and the age: Maria Silva is 34 years old."
    answer = await choice(http, text, max_tokens=40, temperature=0, response_format=wanted)
    assert json.loads(answer["message"]["content"]) == {"name": "Maria Silva", "age": 34}


async def test_a_stop_text_ends_the_answer_before_it(http: httpx.AsyncClient) -> None:
    asked = "Count from one to ten in words."
    free = await choice(http, asked, max_tokens=24, temperature=0, cache_prompt=False)
    word = free["message"]["content"].split()[2]
    cut = await choice(http, asked, max_tokens=24, temperature=0, cache_prompt=False, stop=[word])
    assert cut["finish_reason"] == "stop"
    assert word not in cut["message"]["content"]
    assert free["message"]["content"].startswith(cut["message"]["content"])


async def test_a_seed_gives_the_same_words_again_and_another_seed_others(
    http: httpx.AsyncClient,
) -> None:
    async def words(seed: int) -> str:
        fields = {"max_tokens": 24, "temperature": 1.0, "seed": seed, "cache_prompt": False}
        answer = await choice(http, "Tell a story about a boat.", **fields)
        return str(answer["message"]["content"])

    assert await words(7) == await words(7) != await words(8)


async def test_logprobs_rank_the_chosen_token_first_when_nothing_is_drawn(
    http: httpx.AsyncClient,
) -> None:
    fields = {"max_tokens": 5, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    tokens = (await choice(http, "Say hello.", **fields))["logprobs"]["content"]
    assert len(tokens) == 5
    for token in tokens:
        ranked = [other["logprob"] for other in token["top_logprobs"]]
        assert ranked == sorted(ranked, reverse=True)
        assert token["token"] == token["top_logprobs"][0]["token"]
        assert token["logprob"] <= 0


async def test_tools_change_nothing_for_a_model_whose_template_knows_none(
    http: httpx.AsyncClient,
) -> None:
    """SmolLM2's template has no place for tools, and llama.cpp passes over what has no place."""
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    weather = {"name": "get_weather", "description": "Weather of a city", "parameters": city}
    fields: Body = {"max_tokens": 12, "temperature": 0, "cache_prompt": False}
    tools: Body = {"tools": [{"type": "function", "function": weather}], "tool_choice": "auto"}
    asked = "What is the weather in Lisbon?"
    with_tools = await choice(http, asked, **fields, **tools)
    assert with_tools["message"] == (await choice(http, asked, **fields))["message"]
    assert "Lisbon" in with_tools["message"]["content"]


async def test_a_prompt_that_begins_alike_is_taken_from_the_cache(http: httpx.AsyncClient) -> None:
    shared = "You are given a list of towns by the sea: " + "Lagos, Sines, Peniche, " * 12
    await choice(http, shared + "Which is first?", max_tokens=2)
    again = (await choice(http, shared + "Which is last?", max_tokens=2))["usage"]
    assert again["prompt_tokens_details"]["cached_tokens"] > again["prompt_tokens"] // 2
