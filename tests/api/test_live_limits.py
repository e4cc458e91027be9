"""Requests and tokens per minute of live calls: told, kept and corrected."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from live_env import CHAT, MODEL, PLAIN, USAGE, Env, asked, live_house, streamed

from lowtide.config import LimitSettings
from lowtide.core.accounts.shared_rates import SharedRateLimiter
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.live.live import estimate_tokens
from lowtide.core.scheduling.byte_budget import ByteBudget
from lowtide.limits import LIVE_SHARE_S
from lowtide.loops.live.shared_rates import SharedRatesLoop
from testkit.manual_clock import ManualClock
from testkit.scripted_engine import Cut, ScriptedEngine, completion, reply

HEADERS = ("limit", "remaining", "reset")


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as scripted:
        yield scripted


def limits_of(answer: httpx.Response, noun: str) -> tuple[str, str, str]:
    limit, remaining, reset = (answer.headers[f"x-ratelimit-{name}-{noun}"] for name in HEADERS)
    return limit, remaining, reset


async def test_without_limits_no_header_speaks_of_any(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    async with live_house(tmp_path, engine) as env:
        answer = await env.ask()
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_every_answer_says_where_its_caller_stands(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    bounds = LimitSettings(live_requests_per_minute=60, live_tokens_per_minute=6_000)
    async with live_house(tmp_path, engine, limits=bounds) as env:
        _, steps = streamed("a")
        engine.script(
            [reply(completion())], steps, [reply({"error": "no"}, 400)], [b"HTTP", Cut.CLOSE]
        )
        answers = [
            await env.ask(max_tokens=100),
            await env.ask(max_tokens=100, stream=True),
            await env.ask(max_tokens=100),
            await env.ask(max_tokens=100),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 502]
    for number, answer in enumerate(answers, 1):
        limit, remaining, reset = limits_of(answer, "requests")
        assert (limit, remaining) == ("60", str(60 - number))
        assert reset.endswith("s")
        assert limits_of(answer, "tokens")[0] == "6000"
        assert int(limits_of(answer, "tokens")[1]) < 6_000


async def test_one_request_too_many_is_a_429_that_says_when(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    bounds = LimitSettings(live_requests_per_minute=2)
    async with live_house(tmp_path, engine, limits=bounds) as env:
        answers = [await env.ask() for _ in range(3)]
    refused = answers[2]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert refused.json()["error"] | {"message": ""} == {
        "message": "",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert "2 requests per minute" in refused.json()["error"]["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert limits_of(refused, "requests")[:2] == ("2", "0")
    assert len(engine.requests) == 2


async def test_an_organization_at_its_share_of_the_places_is_told_so_and_when_to_try_again(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    async with live_house(tmp_path, engine) as env:
        (replica,) = env.replicas
        replica.places = ByteBudget(4)
        assert replica.places.take(DEFAULT_ORGANIZATION, 2)
        refused = await env.ask()
        replica.places.take("another", 2)
        full = await env.ask()
        replica.places.give_back("another", 2)
        replica.places.give_back(DEFAULT_ORGANIZATION, 1)
        assert (await env.ask()).status_code == 200
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert DEFAULT_ORGANIZATION in refused.json()["error"]["message"]
    assert "Wait for answers" in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "1"
    assert (full.status_code, full.json()["error"]["code"]) == (503, "model_unavailable")
    assert int(full.headers["retry-after"]) >= 1


async def test_after_the_time_told_the_next_request_passes(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    async with live_house(
        tmp_path, engine, limits=LimitSettings(live_requests_per_minute=1)
    ) as env:
        assert (await env.ask()).status_code == 200
        refused = await env.ask()
        assert refused.status_code == 429
        turn(env, float(refused.headers["retry-after"]))
        assert (await env.ask()).status_code == 200


async def test_two_servers_on_one_database_let_through_what_one_would(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    bounds, clock = LimitSettings(live_requests_per_minute=60), ManualClock()
    both = [SharedRateLimiter(), SharedRateLimiter()]
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                live_house(tmp_path, engine, limits=bounds, clock=clock, rates=rates)
            )
            for rates in both
        ]
        loops = [
            SharedRatesLoop(f"api-{number}", rates, env.http_api.store.live_rates, clock)
            for number, (rates, env) in enumerate(zip(both, servers, strict=True))
        ]
        for loop in (*loops, loops[0]):  # the first has learned of the second
            await loop.tick(clock.now())
        statuses: Counter[int] = Counter()
        for _ in range(90):
            for env in servers:
                answers = [await env.ask() for _ in range(2)]
                statuses.update(answer.status_code for answer in answers)
            clock.advance(LIVE_SHARE_S)
            for loop in loops:
                await loop.tick(clock.now())
    assert set(statuses) == {200, 429}
    assert len(engine.requests) == statuses[200]
    # A minute's worth and what filled in 89 seconds, and at most a quarter of a minute's worth.
    assert 60 + 89 - 2 <= statuses[200] <= 60 + 89 + 15 + 2


def turn(env: Env, seconds: float) -> None:
    env.http_api.clock.shift += type(env.http_api.clock.shift)(seconds=seconds)


async def test_models_have_limits_of_their_own(tmp_path: Path, engine: ScriptedEngine) -> None:
    async with live_house(
        tmp_path, engine, limits=LimitSettings(live_requests_per_minute=1)
    ) as env:
        for model in (MODEL, PLAIN):
            answer = await env.http.post(CHAT, json=asked() | {"model": model})
            assert answer.status_code == 200
        alias = await env.http.post(CHAT, json=asked() | {"model": "m"})
        assert alias.status_code == 429  # another name is no other model


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reported", [True, False])
async def test_tokens_are_reserved_by_estimate_and_corrected_by_the_answer(
    tmp_path: Path, engine: ScriptedEngine, stream: bool, reported: bool
) -> None:
    bounds = LimitSettings(live_tokens_per_minute=10_000)
    fields: dict[str, Any] = {"max_tokens": 1_000, "stream": stream}
    prompt = estimate_tokens(len(json.dumps(asked(**fields), separators=(",", ":"))))
    answer = completion() | {"usage": USAGE if reported else None}
    engine.script(streamed("a", "b", usage=reported)[1] if stream else [reply(answer)])
    async with live_house(tmp_path, engine, limits=bounds) as env:
        began_s = time.monotonic()
        first = await env.ask(**fields)
        assert limits_of(first, "tokens")[1] == str(10_000 - prompt - 1_000)
        second = await env.ask(**fields)
        regained = 1 + (time.monotonic() - began_s) * 10_000 / 60
        used = 10_000 - int(limits_of(second, "tokens")[1]) - prompt - 1_000
    least = USAGE["total_tokens"] if reported else prompt + 1
    most = USAGE["total_tokens"] if reported else prompt + 199  # not the thousand reserved
    assert least - regained <= used <= most


@pytest.mark.parametrize("answer", [[reply({"error": "no"}, 400)], [Cut.RESET]])
async def test_a_call_that_came_to_nothing_costs_no_tokens(
    tmp_path: Path, engine: ScriptedEngine, answer: list[bytes | Cut]
) -> None:
    engine.script(answer)
    async with live_house(
        tmp_path, engine, limits=LimitSettings(live_tokens_per_minute=9_000)
    ) as env:
        first, second = await env.ask(), await env.ask()
    assert limits_of(first, "tokens")[1] == limits_of(second, "tokens")[1]


async def test_the_openai_sdk_waits_as_told_and_then_gets_its_answer(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    async with live_house(
        tmp_path, engine, limits=LimitSettings(live_requests_per_minute=60)
    ) as env:
        await asyncio.gather(*(env.ask() for _ in range(60)))
        async with openai.AsyncOpenAI(
            api_key="k", base_url=f"{env.url}/v1", max_retries=0
        ) as client:
            messages: Any = asked()["messages"]
            with pytest.raises(openai.RateLimitError) as refused:
                for _ in range(60):  # one comes back each second, and a slow machine takes seconds
                    await client.chat.completions.create(model=MODEL, messages=messages)
            assert refused.value.code == "rate_limit_exceeded"
            patient = client.with_options(max_retries=2)
            answer = await patient.chat.completions.create(model=MODEL, messages=messages)
            assert answer.choices[0].message.content == "ok"


async def test_a_small_flex_call_is_read_though_the_live_limit_is_used_up(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    bounds = LimitSettings(live_requests_per_minute=1)
    async with live_house(tmp_path, engine, limits=bounds) as env:
        for name in (MODEL, PLAIN, "unserved"):
            engine.script([reply(completion())])
            await env.ask(model=name)
        refused = await env.ask(model=MODEL)
        flex = await env.ask(
            "/v1/responses", model="nope", input="x", service_tier="flex", background=True
        )
    assert refused.status_code == 429
    assert flex.status_code == 404, "it came as far as its model"
