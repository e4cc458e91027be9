"""Everything at once, at random, from a seed: the account of every batch still adds up.

Engines refuse, throttle, fail, hang and hang up, one of them dies and returns; batches of all sizes
are created side by side and some are cancelled. FAULT_ROUNDS sets how many seeds are played.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from product_env import Env, RuledEngine, ask, open_house, place_of, replica

from testkit.scripted_engine import Answer, Cut, completion, reply, throttled

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))
BATCHES = 6


def moody(random: Random) -> Callable[[str, int], Answer]:
    def rule(text: str, _: int) -> Answer:
        good: Answer = (random.random() * 0.02, reply(completion(f"re: {text}")))
        moods: list[Answer] = [
            (Cut.RESET,),
            (Cut.CLOSE,),
            (reply({"error": {"message": "hiccup"}}, 500),),
            (throttled(random.choice(["0", "0.2", "0.5"])),),
            (reply(b"{}", 503),),
            (reply({"error": {"message": "bad"}}, 400),),
        ]
        if random.random() < 0.001:
            return (Cut.HANG,)
        return random.choice(moods) if random.random() < 0.1 else good

    return rule


async def life_of_a_batch(env: Env, name: str, random: Random) -> None:
    size = random.randrange(1, 300)
    lines = [ask(number, f"{name}-{number}") for number in range(1, size + 1)]
    batch = await env.start(lines, priority=random.randrange(3))
    if random.random() < 0.4:
        await asyncio.sleep(random.random())
        await env.http.post(f"/v1/batches/{batch['id']}/cancel")
    ended = await env.end(batch)
    output, errors = await env.results(ended)
    cancelled_unplanned = ended["status"] == "cancelled" and not ended["request_counts"]["total"]
    assert len(output) + len(errors) == (0 if cancelled_unplanned else size)
    for line in output:
        text = line["response"]["body"]["choices"][0]["message"]["content"]
        assert text == f"re: {name}-{place_of(line)}"
    assert ended["usage"]["total_tokens"] == 7 * len(output)


async def die_and_return(engine: RuledEngine, random: Random) -> None:
    while True:
        await asyncio.sleep(random.random() * 2)
        await engine.stop()
        await asyncio.sleep(random.random() / 2)
        await engine.start()


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_whatever_happens_every_line_is_accounted_for_once(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    async with RuledEngine(moody(random)) as frail, RuledEngine(moody(random)) as firm:
        replicas = [replica(frail, window=16), replica(firm, window=4)]
        async with open_house(tmp_path, replicas, attempt_timeout_s=0.5) as env:
            flapping = asyncio.create_task(die_and_return(frail, random))
            async with asyncio.TaskGroup() as batches:
                for number in range(BATCHES):
                    batches.create_task(life_of_a_batch(env, f"b{number}", random))
            flapping.cancel()
            with suppress(asyncio.CancelledError):
                await flapping
