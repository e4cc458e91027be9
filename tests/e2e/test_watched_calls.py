"""Batch calls beside a live one, through a whole server: streamed on the way, whole in the file."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from product_env import CHAT, Env, RuledEngine, asks, open_house, prompt_of

from lowtide.config import ReplicaSettings
from testkit.scripted_engine import Answer, SeenRequest, completion, reply

MODEL = "m"
LIVE = "somebody waits"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


class StreamingEngine(RuledEngine):
    """Streams where it is asked to, and holds the live call until `may_answer`."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.kinds: Counter[str] = Counter()
        super().__init__(lambda text, _: self._held() if text == LIVE else None)

    def next_answer(self, request: SeenRequest) -> Answer:
        body = json.loads(request.body)
        if not body.get("stream"):
            self.kinds["whole"] += 1
            return super().next_answer(request)
        self.kinds["streamed"] += 1
        return (streamed(f"re: {prompt_of(body)}"),)

    def _held(self) -> Answer:
        return (self.may_answer, reply(completion("at last")))


def streamed(text: str) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in text)]
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({"choices": [], "usage": USAGE})
    events = [f"data: {json.dumps(head | chunk)}\n\n".encode() for chunk in chunks]
    return reply(
        b"".join([*events, b"data: [DONE]\n\n"]), headers={"Content-Type": "text/event-stream"}
    )


async def run_beside_a_live_call(
    env: Env, engine: StreamingEngine, lines: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The output lines of a batch that ran from beginning to end while a live call was held."""
    messages = [{"role": "user", "content": LIVE}]
    live = asyncio.create_task(env.http.post(CHAT, json={"model": MODEL, "messages": messages}))
    await engine.saw_requests(1)
    ended = await env.end(await env.start(lines))
    assert not live.done()
    engine.may_answer.set()
    assert (await live).json()["choices"][0]["message"]["content"] == "at last"
    output, errors = await env.results(ended)
    assert errors == []
    return output


async def test_results_are_the_same_whether_their_answers_were_streamed(tmp_path: Path) -> None:
    async with StreamingEngine() as engine:
        replica = ReplicaSettings(url=engine.url, models=(MODEL,))
        async with open_house(tmp_path, [replica]) as env:
            lines = [*asks(30)]
            lines[4]["body"]["logprobs"] = True  # a stream would tell them piecemeal
            output = await run_beside_a_live_call(env, engine, lines)
    assert engine.kinds == {"streamed": 29, "whole": 2}, "the live call and one line"
    for number, line in enumerate(output, start=1):
        body = line["response"]["body"]
        assert body["object"] == "chat.completion"
        (choice,) = body["choices"]
        assert choice["message"]["content"] == f"re: q{number}"
        assert choice["message"]["role"] == "assistant"
        assert choice["finish_reason"] == "stop"
        assert body["usage"] == USAGE
    assert len(output) == 30


async def test_an_operator_may_forbid_it(tmp_path: Path) -> None:
    async with StreamingEngine() as engine:
        replica = ReplicaSettings(url=engine.url, models=(MODEL,), watch_prompts=False)
        async with open_house(tmp_path, [replica]) as env:
            await run_beside_a_live_call(env, engine, [*asks(5)])
    assert engine.kinds == {"whole": 6}
