"""Flex calls at an API process that has no worker: two processes on one PostgreSQL."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import product_env
from command_line import Command
from product_env import CHAT

from testkit.echo_engine import EchoEngine, running_echo_engine
from testkit.patience import PATIENCE_S


def write_config(folder: Path, name: str, database_url: str, more: str) -> Path:
    config = folder / f"{name}.toml"
    blob_url = product_env.PLACES.get("blob_url", (folder / "shared blobs").as_uri())
    config.write_text(
        f"[server]\nport = 0\ndata_dir = {json.dumps(str(folder / name))}\n"
        f"database_url = {json.dumps(database_url)}\nblob_url = {json.dumps(blob_url)}\n"
        f"[dispatch]\ncommit_interval_s = 0.2\nlease_ttl_s = 1.5\n[[model]]\nid = 'm'\n{more}"
    )
    return config


@asynccontextmanager
async def running_pair(
    folder: Path, database_url: str
) -> AsyncIterator[tuple[httpx.AsyncClient, EchoEngine]]:
    """A client of the API process, and the engine behind the worker."""
    async with AsyncExitStack() as stack:
        engine = stack.enter_context(running_echo_engine())
        replica = f"[[replica]]\nurl = {json.dumps(engine.url)}\nmodels = ['m']\nwindow = 4\n"
        config = write_config(folder, "api", database_url, "")
        serve = ("serve", "--role", "api", "--config", config, "--json")
        api = await stack.enter_async_context(await Command.start(*serve, cwd=folder))
        config = write_config(folder, "worker", database_url, replica)
        work = ("worker", "--config", config, "--json")
        worker = await stack.enter_async_context(await Command.start(*work, cwd=folder))
        address = (await api.printed_json())["address"]
        assert (await worker.printed_json())["models"] == ["m"]
        client = httpx.AsyncClient(base_url=address, timeout=PATIENCE_S, trust_env=False)
        yield await stack.enter_async_context(client), engine


def chat(text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "m", "messages": messages, "service_tier": "flex"}


async def test_an_api_process_answers_with_what_a_worker_did(
    tmp_path: Path, postgres_url: str
) -> None:
    async with running_pair(tmp_path, postgres_url) as (http, engine):
        texts = [f"q{number}" for number in range(12)]
        answers = await asyncio.gather(*(http.post(CHAT, json=chat(text)) for text in texts))
        got = [answer.json()["choices"][0]["message"]["content"] for answer in answers]
        assert got == [f"echo: {text}" for text in texts]
        assert all(engine.calls[text] == 1 for text in texts)
        assert (await http.get("/v1/batches")).json()["data"] == []
        leaving = asyncio.create_task(http.post(CHAT, json=chat("wait 60 long")))
        async with asyncio.timeout(PATIENCE_S):
            while not engine.calls["wait 60 long"]:
                assert not leaving.done()
                await asyncio.sleep(0.02)
        leaving.cancel()
        usage = (await http.get("/v1/usage")).json()
        assert usage["total"]["requests"] == 12
