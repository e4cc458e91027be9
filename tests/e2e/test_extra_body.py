"""What a replica's settings add to requests is in those of batches and in live ones."""

import json
from pathlib import Path

from product_env import CHAT, RuledEngine, asks, open_house, replica


async def test_extra_fields_are_in_batch_requests_and_in_live_ones(tmp_path: Path) -> None:
    async with RuledEngine() as engine:
        extra = {"top_k": 7, "max_tokens": 3}
        settings = replica(engine, extra_body=extra, query={"api-version": "1"})
        async with open_house(tmp_path, [settings]) as env:
            await env.end(await env.start(asks(1)))
            body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
            assert (await env.http.post(CHAT, json=body)).status_code == 200
    bodies = [json.loads(seen.body) for seen in engine.requests]
    assert [{key: body[key] for key in extra} for body in bodies] == [extra, extra]
    assert {seen.path for seen in engine.requests} == {f"{CHAT}?api-version=1"}
