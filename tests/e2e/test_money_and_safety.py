"""The whole product, once: what a batch costs is wired, caps hold, and no address is fetched."""

import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from product_env import CHAT, Env, RuledEngine, ask, asks, replica

from lowtide.config import (
    CatalogueSettings,
    DispatchSettings,
    ModelSettings,
    ServerSettings,
    Settings,
)
from lowtide.wiring import open_application
from testkit.scripted_engine import ScriptedEngine

PRICES: Any = {"input_price": Decimal("0.88"), "output_price": Decimal("1.76")}


@asynccontextmanager
async def open_priced(
    folder: Path, engine: ScriptedEngine, *models: ModelSettings, **more: Any
) -> AsyncIterator[Env]:
    settings = Settings(
        server=ServerSettings(data_dir=folder / "data"),
        dispatch=DispatchSettings(commit_interval_s=0.05),
        replica=(replica(engine),),
        model=models or (ModelSettings(id="m", **PRICES),),
        **more,
    )
    async with open_application(settings) as application:
        assert application.asgi is not None
        transport = httpx.ASGITransport(application.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield Env(http)


@pytest.fixture
async def engine() -> AsyncIterator[RuledEngine]:
    async with RuledEngine() as running:
        yield running


async def test_the_cost_is_the_price_of_the_output_file(
    tmp_path: Path, engine: RuledEngine
) -> None:
    async with open_priced(tmp_path, engine) as env:
        batch = await env.end(await env.start(asks(40)))
        lines = await env.lines(batch["output_file_id"])
        used = [line["response"]["body"]["usage"] for line in lines]
        live = sum(
            use["prompt_tokens"] * PRICES["input_price"]
            + use["completion_tokens"] * PRICES["output_price"]
            for use in used
        ) / Decimal(10**6)
        assert live > 0
        assert Decimal(batch["cost"]["live_amount"]) == live
        assert Decimal(batch["cost"]["amount"]) == Decimal(batch["cost"]["saved"]) == live / 2
        usage = (await env.http.get("/v1/usage?group_by=model")).json()
        assert usage["data"][0]["model"] == "m"
        assert usage["total"]["amount"] == batch["cost"]["amount"]


async def test_a_batch_above_the_cap_fails_and_passes_when_it_is_raised(
    tmp_path: Path, engine: RuledEngine
) -> None:
    async with open_priced(tmp_path, engine) as env:
        path = "/v1/admin/organizations/org_default"
        assert (await env.http.patch(path, json={"spend_cap": "0.0000001"})).status_code == 200
        refused = await env.end(await env.start(asks(5)))
        assert refused["status"] == "failed"
        assert refused["errors"]["data"][0]["code"] == "spend_cap_exceeded"
        await env.http.patch(path, json={"spend_cap": "0.5"})
        ended = await env.end(await env.start(asks(5)))
        assert ended["status"] == "completed"


async def test_no_address_in_a_request_is_ever_fetched(tmp_path: Path, engine: RuledEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bait:
        url = f"http://127.0.0.1:{bait.getsockname()[1]}/secret.png"
        parts = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "file", "file": {"file_url": url}},
            {"type": "input_audio", "input_audio": {"url": url}},
        ]
        request = ask(1)
        request["body"] |= {
            "messages": [{"role": "user", "content": parts}],
            "file": url,
            "tools": [{"type": "mcp", "server_url": url}],
        }
        async with open_priced(tmp_path, engine) as env:
            file_id = await env.upload([request])
            body = {"input_file_id": file_id, "endpoint": CHAT, "metadata": {"webhook": url}}
            tried = await env.http.post("/v1/batches", json={**body, "dry_run": True})
            assert tried.json()["requests"] == 1
            batch = await env.end((await env.http.post("/v1/batches", json=body)).json())
            assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
            await env.http.post("/v1/chat/completions", json=request["body"])
        assert all(url in seen.body.decode() for seen in engine.requests)
        assert len(engine.requests) == 2
        assert select.select([bait], [], [], 0)[0] == []  # the kernel would hold a connection


async def test_an_unserved_model_waits_or_is_refused_as_configured(
    tmp_path: Path, engine: RuledEngine
) -> None:
    models = (ModelSettings(id="m"), ModelSettings(id="cold"))
    async with open_priced(tmp_path / "wait", engine, *models) as env:
        batch = await env.start([ask(1, model="cold")])
        reported = await env.until(batch, lambda seen: seen["status"] == "in_progress")
        assert reported["reason"] == "No replica serves the model cold."
    refuse = CatalogueSettings(unserved="refuse")
    async with open_priced(tmp_path / "refuse", engine, *models, catalogue=refuse) as env:
        batch = await env.end(await env.start([ask(1, model="cold"), ask(2)]))
        (error,) = batch["errors"]["data"]
        assert (batch["status"], error["code"], error["line"]) == ("failed", "model_not_found", 1)
        listed = (await env.http.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["m", "cold"]
