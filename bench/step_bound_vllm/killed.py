"""What becomes of a batch whose engine is killed in its midst and started again."""

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from bench.live_traffic.real_traffic import ENDPOINT, Traffic, house
from bench.step_bound_vllm.engine import START_S, Engine

AROUND_S: Final = 40.0
"""Beside the engine's start: the batch through Lowtide, before and after."""


def takes_s(asked: argparse.Namespace) -> float:
    return float(asked.start_s + AROUND_S)


async def killed(engine: Engine, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A batch through Lowtide, whose engine is killed in its midst and started again."""
    traffic = Traffic(1.0, 32, tuple(asked.batch_words), seed=7, mark=f"{time.time_ns():x}")
    bodies = traffic.batch_bodies(engine.target.model)
    lines = [
        json.dumps({"custom_id": f"r{n}", "method": "POST", "url": ENDPOINT, "body": next(bodies)})
        for n in range(asked.kill_lines)
    ]
    with house(folder / "killed", engine.target, watch_prompts=True) as address:
        async with httpx.AsyncClient(base_url=address, timeout=60.0) as server:
            made = await _batch(server, "\n".join(lines))
            await _once(server, made, lambda seen: _done(seen) >= asked.kill_lines // 3)
            began = time.monotonic()
            engine.end(signal.SIGKILL)
            done_at_kill = _done(await _seen(server, made))
            engine.start()
            await engine.is_up()
            up_s = time.monotonic() - began
            seen = await _once(
                server, made, lambda seen: seen["status"] not in ("in_progress", "finalizing")
            )
            output = await server.get(f"/v1/files/{seen['output_file_id']}/content")
    answered = [json.loads(line)["custom_id"] for line in output.text.splitlines()]
    return {
        "lines": asked.kill_lines,
        "answered": len(answered),
        "answered_twice": len(answered) - len(set(answered)),
        "failed": seen["request_counts"]["failed"],
        "done_at_kill": done_at_kill,
        "engine_up_again_s": round(up_s, 1),
        "batch_done_s": round(time.monotonic() - began, 1),
    }


async def _batch(server: httpx.AsyncClient, lines: str) -> str:
    sent = await server.post("/v1/files", files={"file": lines}, data={"purpose": "batch"})
    asked = {"input_file_id": sent.raise_for_status().json()["id"], "endpoint": ENDPOINT}
    asked["completion_window"] = "24h"
    return str((await server.post("/v1/batches", json=asked)).raise_for_status().json()["id"])


async def _seen(server: httpx.AsyncClient, batch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await server.get(f"/v1/batches/{batch_id}")).raise_for_status().json()
    return found


async def _once(
    server: httpx.AsyncClient, batch_id: str, fact: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The batch as soon as that holds. Raises TimeoutError after START_S."""
    async with asyncio.timeout(START_S):
        while not fact(seen := await _seen(server, batch_id)):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.1)
    return seen


def _done(seen: dict[str, Any]) -> int:
    return int(seen["request_counts"]["completed"])
