"""A server that is killed while single calls are in its queue.

A background response completes in the next life and is charged once. A held call's caller died with
the server, so what is left of it is cancelled and costs nothing.
"""

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_child import PRICES, Json, Served, served

from lowtide.core.usage import Usage
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import Answer, Cut, ScriptedEngine, SeenRequest, reply

USED = {"input_tokens": 12, "output_tokens": 7, "total_tokens": 19}
OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": "thought"}]}]


class HangingEngine(ScriptedEngine):
    """Answers Responses calls, once it is told to; until then it hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.hangs = True

    def next_answer(self, request: SeenRequest) -> Answer:
        super().next_answer(request)
        body = json.loads(request.body)
        text = str(body.get("input") or body["messages"][0]["content"])
        self.asked.append(text)
        if self.hangs:
            return (Cut.HANG,)
        answer = {"id": "resp-1", "object": "response", "status": "completed", "output": OUTPUT}
        return (reply(answer | {"usage": USED}),)


async def ended(server: Served, response_id: str) -> Json:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        seen: Json = (await server.http.get(f"/v1/responses/{response_id}")).json()
        if seen["status"] not in ("queued", "in_progress"):
            return seen
        await asyncio.sleep(0.05)
    raise AssertionError(f"{response_id} did not end")


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "data" / "lowtide.db")) as database:
        return database.execute(query).fetchall()


async def test_a_background_response_outlives_its_server_and_is_charged_once(
    tmp_path: Path,
) -> None:
    body = {"model": "m", "input": "think", "background": True}
    async with HangingEngine() as engine:
        async with served(tmp_path, engine) as server:
            made = (await server.http.post("/v1/responses", json=body)).json()
            assert made["status"] == "queued"
            await engine.saw_requests(1)
            await server.kill()
        engine.hangs = False
        async with served(tmp_path, engine) as server:
            seen = await ended(server, made["id"])
        assert (seen["id"], seen["status"], seen["usage"]) == (made["id"], "completed", USED)
        assert engine.asked == ["think", "think"]
    price = PRICES.batch.charge(Usage(input_tokens=12, output_tokens=7))
    entries = rows(tmp_path, "SELECT requests, charge_pico FROM ledger")
    assert entries == [(1, price)]


async def test_what_callers_waited_for_is_not_run_once_they_died_with_the_server(
    tmp_path: Path,
) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "held"}],
        "service_tier": "flex",
    }
    async with HangingEngine() as engine:
        async with served(tmp_path, engine) as server:
            waiting = asyncio.create_task(server.http.post("/v1/chat/completions", json=body))
            await engine.saw_requests(1)
            await server.kill()
            with pytest.raises(httpx.HTTPError):
                await waiting
        engine.hangs = False
        async with served(tmp_path, engine) as server:
            made = (
                await server.http.post(
                    "/v1/responses", json={"model": "m", "input": "next", "background": True}
                )
            ).json()
            assert (await ended(server, made["id"]))["status"] == "completed"
        assert engine.asked == ["held", "next"]
    ends = rows(tmp_path, "SELECT flex, status FROM batches ORDER BY flex")
    assert ends == [("awaited", "cancelled"), ("background", "completed")]
    assert rows(tmp_path, "SELECT sum(requests) FROM ledger") == [(1,)]
