"""Token estimates of a batch follow what the engine reported for the batches before it."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random

import pytest
from product_env import Env, ask, open_house, replica

from lowtide.store.sql_store import SqlStore
from testkit.scripted_engine import (
    Answer,
    ScriptedEngine,
    SeenRequest,
    completion,
    reply,
)

WORDS = ["tide", "ebb", "harbour", "the", "of", "quiet", "lantern", "a", "keeper", "walks", "along"]
HAN = "潮水每天退去两次没有人要求它这样做"


def tokens_of(text: str) -> int:
    """A tokenizer that is as wasteful with English as with Chinese, and has a long template."""
    han = sum(char in HAN for char in text)
    return 31 + 2 * len(text.split()) + 2 * han


class CountingEngine(ScriptedEngine):
    """Reports as prompt tokens what `tokens_of` makes of the prompt."""

    def next_answer(self, request: SeenRequest) -> Answer:
        super().next_answer(request)
        text = json.loads(request.body)["messages"][0]["content"]
        answer = completion()
        answer["usage"]["prompt_tokens"] = tokens_of(text)
        return (reply(answer),)


@pytest.fixture
async def engine() -> AsyncIterator[CountingEngine]:
    async with CountingEngine() as running:
        yield running


def english(draw: Random) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(5, 200)))


def chinese(draw: Random) -> str:
    return "".join(draw.choice(HAN) for _ in range(draw.randint(5, 400)))


async def run_batch(env: Env, texts: Sequence[str]) -> str:
    lines = [ask(number, text) for number, text in enumerate(texts, start=1)]
    batch = await env.start(lines)
    ended = await env.end(batch)
    assert ended["request_counts"]["completed"] == len(texts)
    return str(batch["id"])


async def planned(folder: Path, batch_ids: Sequence[str]) -> list[int]:
    """What validation estimated, read from the database when nobody else has it."""
    store = SqlStore.sqlite(folder / "data" / "lowtide.db")
    await store.open()
    shares = [await store.batches.models(batch_id) for batch_id in batch_ids]
    await store.aclose()
    return [share["m"].input_tokens for share in shares]


async def test_the_next_batch_is_planned_with_what_was_learnt_also_after_a_restart(
    tmp_path: Path, engine: CountingEngine
) -> None:
    draw = Random(5)
    mixed = [draw.choice((english, chinese))(draw) for _ in range(500)]
    in_english = [english(draw) for _ in range(60)]
    in_chinese = [chinese(draw) for _ in range(60)]
    async with open_house(tmp_path, [replica(engine)]) as env:
        first = await run_batch(env, mixed)
        second = await run_batch(env, in_chinese)
    async with open_house(tmp_path, [replica(engine)]) as env:
        third = await run_batch(env, in_english)
    before, chinese_after, english_after = await planned(tmp_path, [first, second, third])
    assert abs(before / sum(map(tokens_of, mixed)) - 1) > 0.3, "nothing was known yet"
    assert chinese_after == pytest.approx(sum(map(tokens_of, in_chinese)), rel=0.1)
    assert english_after == pytest.approx(sum(map(tokens_of, in_english)), rel=0.1)
