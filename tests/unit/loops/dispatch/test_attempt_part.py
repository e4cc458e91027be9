"""loops/dispatch/attempt.py for the parts of a prompt: the call that is made, and the usage of the
answer after them."""

import json
from typing import Any

import msgspec
import pytest
from test_attempt import request
from worker_env import upstream

from lowtide.core.dispatch.request import Request
from lowtide.core.faults.outcome import Failed, NoReply, Rejected, Reply, Succeeded
from lowtide.loops.dispatch.attempt import Upstream, attempt, attempt_part
from testkit.fake_engine import FakeEngine

CHAT = "/v1/chat/completions"
ANSWER = b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"length"}],"usage":%b}'


def beside(engine: FakeEngine) -> Upstream:
    return msgspec.structs.replace(upstream(engine), streaming=engine)  # type: ignore[arg-type]


def asks(body: dict[str, Any], part: int | None = 50, tokens: int = 100) -> Request:
    line = {"custom_id": "r", "body": {"model": "m", **body}}
    asked = request(json.dumps(line).encode(), CHAT if "messages" in body else "/v1/completions")
    asked.part, asked.tokens = part, tokens
    return asked


def says(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


async def test_a_part_is_a_call_with_the_prompts_beginning_and_one_token() -> None:
    engine = FakeEngine()
    messages = [says("system", "s" * 20), says("user", "u" * 80)]
    whole = {
        "messages": messages,
        "max_completion_tokens": 900,
        "min_tokens": 5,
        "response_format": {"type": "json_object"},
        "temperature": 0.5,
    }
    to = beside(engine)
    to.replica.priority = 100
    assert isinstance(await attempt_part(to, asks(whole)), Succeeded)
    (call,) = engine.calls
    assert call.path == "/chat/completions"
    assert json.loads(call.body) == {
        "model": "m",
        "messages": [messages[0], says("user", "u" * 30)],
        "max_tokens": 1,
        "temperature": 0.5,
        "priority": 100,
    }


async def test_a_prompt_that_is_one_string_is_cut_as_well() -> None:
    engine = FakeEngine()
    await attempt_part(beside(engine), asks({"prompt": "x" * 40, "max_tokens": 7}))
    body = json.loads(engine.calls[0].body)
    assert (body["prompt"], body["max_tokens"]) == ("x" * 20, 1)


IMAGE = [{"type": "image_url", "image_url": {"url": "data:,"}}]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": IMAGE}]},
        {"messages": [says("user", "x" * 99)], "tools": []},
        {"messages": [says("user", "x" * 99)], "truncate_prompt_tokens": 9},
        {"messages": [says("tool", "x" * 99)]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
        {"messages": [says("assistant", "x" * 99), says("user", "y")]},
        {"messages": []},
        {"prompt": ["x" * 99]},
        {"prompt": [1, 2, 3]},
        {"prompt": ""},
        {},
    ],
)
async def test_a_prompt_that_is_more_than_text_is_not_cut(body: dict[str, Any]) -> None:
    engine = FakeEngine()
    assert await attempt_part(beside(engine), asks(body)) is None
    assert engine.calls == []


async def test_what_became_of_a_part_is_an_outcome() -> None:
    refused = Reply(400, b'{"error":{"message":"roles must alternate"}}')
    engine = FakeEngine(refused, NoReply("broken", "reset"))
    to, asked = beside(engine), asks({"prompt": "x" * 40})
    assert isinstance(await attempt_part(to, asked), Rejected)
    assert isinstance(await attempt_part(to, asked), Failed)


@pytest.mark.parametrize(("told", "left"), [(90, 40), (30, 0), (0, 0)])
async def test_cached_tokens_that_its_own_parts_caused_are_not_the_users(
    told: int, left: int
) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 1,
        "total_tokens": 101,
        "prompt_tokens_details": {"cached_tokens": told, "audio_tokens": None},
    }
    engine = FakeEngine(Reply(200, ANSWER % json.dumps(usage).encode()))
    asked = asks({"messages": [says("user", "x")]}, part=None)
    asked.tokens_cached = 50
    _, outcome = await attempt(beside(engine), asked)
    assert isinstance(outcome, Succeeded)
    assert (outcome.usage.input_tokens, outcome.usage.cached_tokens) == (100, left)
    answer = json.loads(outcome.body)
    usage["prompt_tokens_details"] = {"cached_tokens": left, "audio_tokens": None}
    assert answer["usage"] == usage
    assert answer["choices"][0]["message"]["content"] == "a"
