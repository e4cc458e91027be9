"""Engines that come, move and go in a file, while a batch runs on them."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from command_line import (
    Command,
    custom_ids,
    reached,
    request_line,
    write_lines,
)

from testkit.patience import PATIENCE_S
from testkit.scripted_engine import ScriptedEngine, completion, reply

QUICK = (reply(completion()),)


@pytest.fixture
async def engines() -> AsyncIterator[tuple[ScriptedEngine, ScriptedEngine]]:
    async with ScriptedEngine(otherwise=QUICK) as one, ScriptedEngine(otherwise=QUICK) as two:
        yield one, two


def put(path: Path, **engines: ScriptedEngine) -> None:
    """Replaces the list."""
    entries = [
        {"name": name, "address": "127.0.0.1", "port": str(urlsplit(engine.url).port)}
        for name, engine in engines.items()
    ]
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"endpoints": entries}))
    beside.rename(path)


async def listed(address: str, fact: Callable[[Any], bool]) -> Any:
    """The list of engines, once `fact` holds of it."""
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(base_url=address) as client:
        while True:
            found = (await client.get("/v1/admin/engines")).json()
            if fact(found):
                return found
            await asyncio.sleep(0.02)


async def test_a_batch_outlives_all_that_happens_to_its_engines(
    tmp_path: Path, engines: tuple[ScriptedEngine, ScriptedEngine]
) -> None:
    one, two = engines
    path, settings = tmp_path / "endpoints.yaml", tmp_path / "lowtide.toml"
    source = '[[source]]\nkind = "file"\npath = "endpoints.yaml"\nmodels = ["m"]\nwindow = '
    settings.write_text(source + "4\n")
    opened = asyncio.Event()
    one.otherwise = (opened, *QUICK)
    lines = write_lines(tmp_path / "in.jsonl", [request_line(f"r{n}") for n in range(12)])
    server = await Command.start("serve", "--port", "0", "--json", cwd=tmp_path)
    async with server:
        address = (await server.printed_json())["address"]
        assert "cannot be read" in server.reported or await server.said("source.stale")
        run = ["run", str(lines), "-o", "out.jsonl", "--server", address]
        async with await Command.start(*run, cwd=tmp_path) as running:
            put(path, a=one)
            await reached(one, 1)  # its call hangs
            (engine,) = (await listed(address, lambda found: bool(found["data"])))["data"]
            assert (engine["name"], engine["source"]) == ("a", "file endpoints.yaml")
            settings.write_text(source + "2\n")  # without a signal
            assert json.loads(await server.said("settings.reloaded"))["changed"] == ["a"]
            path.write_text("endpoints: half of a wo")
            await server.said("source.stale")
            failing = await listed(address, lambda found: found["sources"][0]["trouble"])
            (stale,) = failing["sources"]
            assert stale["engines"] == ["a"]
            assert "has no list" in stale["trouble"]
            put(path, a=two)  # the same engine at another address
            code, _, reported = await running.ended()
            assert code == 0, reported
        assert custom_ids(tmp_path / "out.jsonl") == [f"r{n}" for n in range(12)]
        assert (len(one.requests), len(two.requests)) == (1, 12), "what hung is sent once more"
        opened.set()
        server.send(signal.SIGTERM)
        code, _, _ = await server.ended()
    assert code == 0
