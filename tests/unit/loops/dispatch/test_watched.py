"""loops/dispatch/watched.py and what loops/dispatch/attempt.py makes of it, over a real HTTP engine
client."""

import asyncio
import json
from collections.abc import AsyncIterator

import msgspec
import pytest
from test_attempt import request
from worker_env import upstream

from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.request import Request
from lowtide.core.faults.outcome import Failed, Outcome, Rejected, Succeeded
from lowtide.engines.http.client import HttpEngine
from lowtide.loops.dispatch.attempt import Upstream, attempt
from testkit.fake_engine import FakeEngine
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import Cut, ScriptedEngine, reply

LINE = b'{"custom_id":"r","body":{"model":"m","messages":[],"max_tokens":4}}'
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
END = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)


def part(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST = b"0\r\n\r\n"


class Env:
    """One watched request on its way to a scripted engine."""

    def __init__(self, engine: ScriptedEngine, client: HttpEngine) -> None:
        self.engine = engine
        to = upstream(FakeEngine())
        self.upstream: Upstream = msgspec.structs.replace(to, engine=client, streaming=client)
        self.replica = self.upstream.replica
        self.replica.streams = True
        self.replica.controller = WindowController()
        self.replica.controller.pacer.active = True
        self.request: Request = request(LINE, "/v1/chat/completions")
        self.request.prefill_done = False
        self.replica.started(tokens=9, watched=True)
        self.read = asyncio.Event()
        self.tokens = 0

    async def send(self) -> Outcome:
        def on_token(_: Upstream, read: Request) -> None:
            assert read is self.request
            self.read.set()
            self.tokens += 1

        async with asyncio.timeout(PATIENCE_S):
            return (await attempt(self.upstream, self.request, on_token))[1]

    def asked(self) -> list[dict[str, object]]:
        return [json.loads(seen.body) for seen in self.engine.requests]


@pytest.fixture
async def env() -> AsyncIterator[Env]:
    async with ScriptedEngine() as engine:
        client = HttpEngine(engine.url)
        yield Env(engine, client)
        await client.aclose()


async def test_the_answer_is_whole_and_its_tokens_are_told_as_they_come(env: Env) -> None:
    rest = asyncio.Event()
    env.engine.script((HEAD, part(TOKEN), rest, part(TOKEN + END), LAST))
    sent = asyncio.create_task(env.send())
    async with asyncio.timeout(PATIENCE_S):
        await env.read.wait()
    assert not sent.done()
    assert env.tokens == 1
    rest.set()
    outcome = await sent
    assert env.tokens > 1
    assert isinstance(outcome, Succeeded)
    answer = json.loads(outcome.body)
    assert answer["choices"][0]["message"]["content"] == "aa"
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (3, 1)
    (asked,) = env.asked()
    assert asked["stream"] is True
    assert asked["stream_options"] == {"include_usage": True}


async def test_a_refusal_is_a_refusal(env: Env) -> None:
    env.engine.script((reply(b'{"error":{"message":"too long"}}', 400),))
    outcome = await env.send()
    assert isinstance(outcome, Rejected)
    assert outcome.status == 400
    assert len(env.engine.requests) == 1


async def test_a_stream_that_breaks_off_is_tried_again_later(env: Env) -> None:
    env.engine.script((HEAD, part(TOKEN), Cut.RESET))
    outcome = await env.send()
    assert isinstance(outcome, Failed)
    assert env.replica.streams


async def test_an_engine_that_answers_whole_all_the_same_is_understood(env: Env) -> None:
    outcome = await env.send()
    assert isinstance(outcome, Succeeded)
    assert not env.read.is_set()


async def test_a_stream_that_does_not_tell_all_is_asked_for_no_more(env: Env) -> None:
    env.engine.script((HEAD, part(TOKEN), part(b"data: [DONE]\n\n"), LAST))
    outcome = await env.send()
    assert isinstance(outcome, Succeeded), "it was sent again, for a whole answer"
    assert "stream" not in env.asked()[1]
    assert not env.replica.streams
    assert not env.replica.watches


async def test_an_engine_that_refuses_streams_is_asked_for_no_more(env: Env) -> None:
    env.engine.script((reply(b'{"error":{"message":"stream_options is unknown"}}', 422),))
    assert isinstance(await env.send(), Succeeded)
    assert "stream_options" not in env.asked()[1]
    assert not env.replica.streams


@pytest.mark.parametrize(
    ("asked", "kind", "is_streamed"),
    [
        (None, "vllm", True),
        (None, "openai", True),
        (None, "llamacpp", False),
        (True, "llamacpp", True),
        (False, "vllm", False),
    ],
)
async def test_without_a_setting_the_kind_of_the_engine_decides_whether_answers_are_streamed(
    env: Env, asked: bool | None, kind: str, is_streamed: bool
) -> None:
    env.replica.streams = asked
    env.replica.know_engine(kind, priority=None)
    assert env.replica.watches is is_streamed


async def test_an_engine_that_lost_its_priority_keeps_its_streams(env: Env) -> None:
    refusal = (reply(b'{"error":{"message":"Priority is not enabled"}}', 400),)
    env.replica.priority = 100
    env.engine.script(refusal)
    assert isinstance(await env.send(), Succeeded)
    assert env.replica.priority is None
    assert env.replica.streams


async def test_a_request_whose_stream_says_less_than_its_answer_is_not_streamed(
    env: Env,
) -> None:
    env.request.data = b'{"custom_id":"r","body":{"model":"m","messages":[],"n":2}}'
    assert isinstance(await env.send(), Succeeded)
    assert "stream" not in env.asked()[0]
    assert env.request.prefill_done is None


async def test_an_answer_that_takes_too_long_is_given_up(env: Env) -> None:
    env.upstream = msgspec.structs.replace(env.upstream, timeout_s=0.05)
    env.engine.script((HEAD, part(TOKEN), Cut.HANG))
    outcome = await env.send()
    assert isinstance(outcome, Failed)
    assert "0.05 s" in outcome.detail


async def test_whoever_lets_go_closes_the_connection(env: Env) -> None:
    env.engine.script((HEAD, part(TOKEN), Cut.HANG))
    sent = asyncio.create_task(env.send())
    async with asyncio.timeout(PATIENCE_S):
        await env.read.wait()
    sent.cancel()
    await asyncio.wait([sent])
    await env.engine.saw_abandoned(1)
