"""Calls with `service_tier: "flex"`: answered like live calls, charged like batches."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from flex_env import PRICES, FlexEnv, open_flex
from product_env import CHAT, RuledEngine

from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, OrganizationLimits
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import Answer, Cut, completion, reply

pytestmark = pytest.mark.usefixtures("full_window")


def rule(text: str, _: int) -> Answer | None:
    """Some texts hang, some are refused."""
    if text.startswith("hang"):
        return (Cut.HANG,)
    if text.startswith("refuse"):
        return (reply({"error": {"message": text, "type": "invalid_request_error"}}, 400),)
    if text.startswith("break"):
        return (reply({"error": {"message": text}}, 500),)
    return None


@pytest.fixture
async def engine() -> AsyncIterator[RuledEngine]:
    async with RuledEngine(rule) as running:
        yield running


@pytest.fixture
async def env(tmp_path: Path, engine: RuledEngine) -> AsyncIterator[FlexEnv]:
    async with open_flex(tmp_path, engine) as running:
        yield running


async def test_a_call_is_answered_by_the_engine_and_charged_as_a_batch(
    env: FlexEnv, engine: RuledEngine
) -> None:
    answer = await env.ask("hé\nllo", temperature=0.25, seed=12345678901234567890)
    body = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert body["choices"][0]["message"]["content"] == "re: hé\nllo"
    assert body["service_tier"] == "flex"
    asked = json.loads(engine.requests[-1].body)
    assert asked == {
        "model": "m",
        "messages": [{"role": "user", "content": "hé\nllo"}],
        "temperature": 0.25,
        "seed": 12345678901234567890,
    }
    used = body["usage"]
    live = (
        used["prompt_tokens"] * PRICES["input_price"]
        + used["completion_tokens"] * PRICES["output_price"]
    )
    (batch,) = await env.until("completed")
    (entry,) = await env.application.store.ledger.entries(batch.id)
    assert Decimal(entry.charge_pico) / 10**6 == live / 2, "half of the live price"
    assert (entry.requests, entry.usage.input_tokens) == (1, used["prompt_tokens"])
    assert (await env.cost()).charge_pico == entry.charge_pico


async def test_lists_do_not_show_what_calls_left_behind(env: FlexEnv) -> None:
    await env.ask()
    (batch,) = await env.until("completed")
    for path in ("/v1/batches", "/v1/files"):
        assert (await env.http.get(path)).json()["data"] == []
    seen = (await env.http.get(f"/v1/batches/{batch.id}")).json()
    assert (seen["status"], seen["completion_window"]) == ("completed", "15m")


async def test_calls_that_come_together_are_one_batch_and_get_their_own_answers(
    env: FlexEnv, engine: RuledEngine
) -> None:
    env.gather_for(1.0)
    texts = [f"q{number}" for number in range(30)]
    answers = await asyncio.gather(*(env.ask(text) for text in texts))
    got = [answer.json()["choices"][0]["message"]["content"] for answer in answers]
    assert got == [f"re: {text}" for text in texts]
    assert len(await env.batches()) <= 3
    cost = await env.cost()
    assert (cost.requests, engine.asked.total()) == (30, 30)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings", "/v1/responses"])
async def test_every_endpoint_has_the_tier(env: FlexEnv, path: str) -> None:
    answer = await env.ask("x", path)
    assert answer.status_code == 200, answer.text
    assert answer.json()["service_tier"] == "flex"


async def test_what_the_engine_refuses_is_refused_in_its_words_and_free(env: FlexEnv) -> None:
    good, refused, broken = await asyncio.gather(
        env.ask("good"), env.ask("refuse this"), env.ask("break")
    )
    assert good.status_code == 200
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "refuse this")
    assert broken.status_code == 500
    assert set(broken.json()["error"]) == {"message", "type", "param", "code"}
    assert (await env.cost()).requests == 1


async def test_a_call_that_cannot_run_is_refused_alone(env: FlexEnv) -> None:
    good, unknown, empty = await asyncio.gather(
        env.ask("good"), env.ask(model="nope"), env.ask(messages=None)
    )
    assert good.status_code == 200
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert (empty.status_code, empty.json()["error"]["param"]) == (400, "messages")


async def test_a_model_that_nothing_serves_is_told_at_once(env: FlexEnv) -> None:
    answer = await env.ask(model="unserved")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert answer.json()["error"]["code"] == "resource_unavailable"
    assert "no replica serves" in answer.json()["error"]["message"]
    assert await env.batches() == []


async def test_a_spent_cap_is_told_at_once_and_not_to_be_asked_again(env: FlexEnv) -> None:
    await env.ask()
    tenants = env.application.store.tenants
    await tenants.change_organization(
        DEFAULT_ORGANIZATION,
        limits=OrganizationLimits(),
        spend_cap_pico=1,
        now=datetime.now(UTC),
    )
    env.application.asgi.state.services.allowance.forget()  # type: ignore[union-attr]
    answer = await env.ask()
    assert (answer.status_code, answer.headers["x-should-retry"]) == (429, "false")
    assert "Spend cap reached" in answer.json()["error"]["message"]
    assert len(await env.batches()) == 1


async def test_a_client_that_leaves_takes_its_call_along(env: FlexEnv, engine: RuledEngine) -> None:
    leaving = asyncio.create_task(env.ask("hang"))
    await engine.saw_requests(1)
    leaving.cancel()
    await engine.saw_abandoned(1)
    await env.until("cancelled")
    assert (await env.cost()).requests == 0


async def test_a_client_that_leaves_leaves_the_others_their_answers(
    env: FlexEnv, engine: RuledEngine
) -> None:
    env.gather_for(1.0)
    gate = asyncio.Event()
    engine.rule = lambda text, _: None if text == "other" else (gate, reply(completion(text)))
    leaving = asyncio.create_task(env.ask("left"))
    staying = asyncio.create_task(env.ask("stays"))
    await engine.saw_requests(2)
    assert len(await env.batches()) == 1, "they came together"
    leaving.cancel()
    other = await env.ask("other")
    assert other.status_code == 200
    gate.set()
    assert (await staying).json()["choices"][0]["message"]["content"] == "stays"


async def test_a_server_that_stops_lets_go_of_its_callers(
    env: FlexEnv, engine: RuledEngine
) -> None:
    waiting = asyncio.create_task(env.ask("hang"))
    await engine.saw_requests(1)
    env.application.begin_drain()
    answer = await waiting
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_stopping")
    assert int(answer.headers["retry-after"]) > 0
    assert (await env.ask()).status_code == 503
    await env.until("cancelling")  # what is to be written of it is the next process's


async def test_a_chat_may_be_streamed_once_it_is_there(env: FlexEnv) -> None:
    options = {"include_usage": True}
    answer = await env.ask("hello", stream=True, stream_options=options)
    assert answer.headers["content-type"] == "text/event-stream"
    *chunks, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    said = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
    assert said[0]["choices"][0]["delta"] == {"role": "assistant", "content": "re: hello"}
    assert said[1]["choices"][0]["finish_reason"] == "stop"
    assert said[2]["usage"]["total_tokens"] == 7


async def test_other_streams_are_refused(env: FlexEnv) -> None:
    answer = await env.ask("x", "/v1/responses", stream=True)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream")


@pytest.mark.parametrize("tier", ["auto", "default", "priority"])
async def test_other_tiers_go_to_the_engine_as_they_are(
    env: FlexEnv, engine: RuledEngine, tier: str
) -> None:
    answer = await env.ask("the word flex", service_tier=tier)
    assert answer.status_code == 200
    assert json.loads(engine.requests[-1].body)["service_tier"] == tier
    assert await env.batches() == []


async def test_metrics_tell_who_waits_and_who_waited(env: FlexEnv, engine: RuledEngine) -> None:
    waiting = asyncio.create_task(env.ask("hang"))
    await engine.saw_requests(1)
    text = (await env.http.get("/metrics")).text
    assert f'lowtide_flex_held{{endpoint="{CHAT}"}} 1.0' in text
    waiting.cancel()
    await engine.saw_abandoned(1)
    async with asyncio.timeout(PATIENCE_S):
        while f'lowtide_flex_held{{endpoint="{CHAT}"}} 0.0' not in text:
            text = (await env.http.get("/metrics")).text
    assert 'lowtide_flex_held_seconds_count{status="0"}' in text
