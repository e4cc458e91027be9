"""Long batch prompts beside live calls, through a whole server and a simulated vLLM: in parts."""

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import httpx
from product_env import CHAT, Env, open_house

from lowtide.config import ReplicaSettings
from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.http.serving import served
from testkit.patience import PATIENCE_S

MODEL = "m"
LINES = 4
ANSWER_TOKENS = 12
PROMPT_TOKENS = 1_600


def lines() -> list[dict[str, Any]]:
    """Prompts that have nothing in common, and answers of a known length."""
    return [
        {
            "custom_id": f"r-{number + 1}",
            "method": "POST",
            "url": CHAT,
            "body": {
                "model": MODEL,
                "messages": [{"role": "user", "content": f"{number:04}" * PROMPT_TOKENS}],
                "max_tokens": ANSWER_TOKENS,
                "ignore_eos": True,
            },
        }
        for number in range(LINES)
    ]


async def live_call(env: Env) -> None:
    """A user whose answer goes on and on."""
    messages = [{"role": "user", "content": "tide"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 100_000, "ignore_eos": True}
    await env.http.post(CHAT, json=body)


async def too_long_steps_seen(env: Env) -> None:
    """Returns when Lowtide says that it has seen them."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            (engine,) = (await env.http.get("/v1/admin/engines")).json()["data"] or [{}]
            if (engine.get("load") or {}).get("sends_parts"):
                return
            await asyncio.sleep(0.05)


async def counted(address: str) -> dict[str, float]:
    """The engine's own counters, by name."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        page = (await http.get(f"{address}/metrics")).text
    names = "request_success_total|prefix_cache_hits_total"
    found = re.findall(rf"^vllm:({names})\{{([^}}]*)\}} (\S+)$", page, re.MULTILINE)
    return {name: float(value) for name, labels, value in found if "abort" not in labels}


async def test_prompts_are_read_in_parts_and_results_are_of_the_whole_calls(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    replica = ReplicaSettings(url=f"{address}/v1", models=(MODEL,), itl_slo_ms=1)
    async with served(ServerOptions(model=MODEL), listener), open_house(tmp_path, [replica]) as env:
        user = asyncio.create_task(live_call(env))
        await too_long_steps_seen(env)
        ended = await env.end(await env.start(lines()))
        engine = await counted(address)
        output, errors = await env.results(ended)
        assert not user.done()
        user.cancel()
        await asyncio.gather(user, return_exceptions=True)
    assert errors == []
    assert len(output) == LINES
    for line in output:
        usage = line["response"]["body"]["usage"]
        assert usage["completion_tokens"] == ANSWER_TOKENS, "of the whole call, not of a part"
        assert usage["prompt_tokens"] >= PROMPT_TOKENS
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0, "no line has what another had"
    assert engine["request_success_total"] > 2 * LINES, "parts are calls of their own"
    assert engine["prefix_cache_hits_total"] > PROMPT_TOKENS, "and found what others had read"
