"""SIGTERM in the middle of work: what was begun is finished, nothing else is, and the exit is 0.

A process with the HTTP API and one of every kind of call in flight; the fleet's workers are in
test_replica_ownership.py.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from command_line import Command
from product_env import Env, asks

from testkit.echo_engine import EchoEngine, running_echo_engine
from testkit.patience import PATIENCE_S

DELAY_S = 5.0
LIVE_S = 6.0
LINES = 60_000
"""More bytes than the sockets between server and client hold."""


async def started(folder: Path, engine: EchoEngine, database_url: str) -> tuple[Command, str]:
    config = folder / "lowtide.toml"
    config.write_text(
        f"[server]\nport = 0\ndata_dir = {json.dumps(str(folder / 'data'))}\n"
        f"database_url = {json.dumps(database_url)}\nshutdown_delay_s = {DELAY_S}\n"
        f"[[replica]]\nurl = {json.dumps(engine.url)}\nmodels = ['m']\n"
    )
    arguments = ("serve", "--role", "api", "--config", config, "--json")
    command = await Command.start(*arguments, cwd=folder)
    return command, str((await command.printed_json())["address"])


async def test_an_api_that_is_told_to_stop_finishes_uploads_downloads_and_live_calls(
    tmp_path: Path, postgres_url: str
) -> None:
    with running_echo_engine() as engine:
        command, address = await started(tmp_path, engine, postgres_url)
        async with command, httpx.AsyncClient(base_url=address, timeout=PATIENCE_S) as http:
            content = "".join(json.dumps(line) + "\n" for line in asks(LINES)).encode()
            stored = await Env(http).upload(asks(LINES))
            reported, boundary = asyncio.Event(), "b0und"
            live = asyncio.create_task(_live(http, f"wait {LIVE_S} there"))
            upload = asyncio.create_task(
                http.post(
                    "/v1/files",
                    content=_slowly(content, boundary, reported),
                    headers={"content-type": f"multipart/form-data; boundary={boundary}"},
                )
            )
            async with http.stream("GET", f"/v1/files/{stored}/content") as download:
                pieces = download.aiter_bytes()
                got = await anext(pieces)
                await _until_asked(engine)
                assert (await http.get("/ready")).status_code == 200
                command.send(signal.SIGTERM)
                await command.said("stopping")

                turned = await http.get("/ready")
                assert turned.status_code == 503
                assert turned.json()["error"]["code"] == "server_stopping"
                late = await http.get("/v1/models")
                assert late.status_code == 200, "balancers have not noticed yet"
                reported.set()
                sent = await upload
                assert sent.status_code == 200, sent.text
                got += b"".join([piece async for piece in pieces])
            assert got == content
            answered = await live
            assert answered == f"echo: wait {LIVE_S} there"
            code, _, words = await command.ended()
            assert code == 0, words
            with pytest.raises(httpx.TransportError):
                await http.get("/health")


async def _live(http: httpx.AsyncClient, text: str) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


async def _slowly(content: bytes, boundary: str, reported: asyncio.Event) -> AsyncIterator[bytes]:
    """A form whose second half comes after the server was told to stop."""
    yield (
        f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    ).encode()
    half = len(content) // 2
    yield content[:half]
    await reported.wait()
    yield content[half:]
    yield f"\r\n--{boundary}--\r\n".encode()


async def _until_asked(engine: EchoEngine) -> None:
    """The engine lives in another thread and tells nobody."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if engine.calls:
                return
            await asyncio.sleep(0.02)
