"""A whole server and an engine with the scheduler class, which is then restarted without it."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
from product_env import Env, asks, open_house

from lowtide.config import ReplicaSettings
from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.http.serving import served
from testkit.patience import PATIENCE_S

MODEL = "m"
SMALL: dict[str, Any] = {"model": MODEL, "output_mu": 4.0, "output_sigma": 0.3, "time_scale": 8.0}


async def reported(env: Env, *, bounds_steps: bool) -> dict[str, Any]:
    """What the server says of its one engine, once it says that."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            (engine,) = (await env.http.get("/v1/admin/engines")).json()["data"] or [{}]
            load = engine.get("load") or {}
            if load.get("bounds_steps") is bounds_steps and load.get("running") is not None:
                return load
            await asyncio.sleep(0.05)


async def live_calls(address: str) -> None:
    """A user who asks the engine itself, again and again, while it is there."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "tide"}], "max_tokens": 40}
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE_S) as http:
        while True:
            try:
                await http.post("/v1/chat/completions", json=body)
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def test_a_batch_is_left_to_the_class_and_paced_again_when_the_engine_loses_it(
    tmp_path: Path,
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    place = listener.getsockname()
    address = f"http://127.0.0.1:{place[1]}"
    bounded = ServerOptions(**SMALL, batch_scheduler="step-bound")
    replica = ReplicaSettings(url=f"{address}/v1", models=(MODEL,))
    async with open_house(tmp_path, [replica]) as env:
        user = asyncio.create_task(live_calls(address))
        async with served(bounded, listener):
            batch = await env.start(asks(400))
            load = await reported(env, bounds_steps=True)
            assert load["bound"] in ("start", "kv"), "live calls do not narrow it"
        async with served(ServerOptions(**SMALL), socket.create_server(place)):
            await reported(env, bounds_steps=False)
            await env.end(batch)
        output, errors = await env.results(batch)
        user.cancel()
        await asyncio.gather(user, return_exceptions=True)
    assert (len(output), errors) == (400, [])
