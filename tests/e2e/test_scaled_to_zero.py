"""A model at zero replicas: a batch starts its engine, is answered, and the engine is stopped."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from product_env import Env, asks

from lowtide import limits
from lowtide.config import (
    DispatchSettings,
    ScalerSettings,
    ScaleSettings,
    ServerSettings,
    Settings,
    SourceSettings,
)
from lowtide.engines.scalers.process_slot import ProcessSlot
from lowtide.wiring import open_application
from testkit.patience import PATIENCE_S

START = (
    sys.executable,
    "-m",
    "lowtide",
    "simulate-engine",
    "--port",
    "0",
    "--json",
    "--model",
    "m",
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds so that nothing is asked too often takes moments."""
    for name in ("SCALE_S", "STANDING_FRESH_S", "BACKLOG_AGE_S", "SOURCE_POLL_S"):
        monkeypatch.setattr(limits, name, 0.2)
    monkeypatch.setattr(limits, "SCALER_FIRST_S", 0.0)


class Box:
    """One machine with an engine that is started when it is needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.list = folder / "endpoints.json"
        self.list.write_text('{"endpoints": []}')

    @property
    def settings(self) -> Settings:
        scaler = ScalerSettings(kind="command", models=("m",), start=START, replicas_max=1)
        return Settings(
            server=ServerSettings(data_dir=self.folder / "data"),
            dispatch=DispatchSettings(commit_interval_s=0.05),
            scale=ScaleSettings(cold_start_s=0.2, hold_s=0.2),
            source=(SourceSettings(kind="file", path=self.list, models=("m",)),),
            scaler=(scaler,),
        )

    @asynccontextmanager
    async def lowtide(self) -> AsyncIterator[Env]:
        async with open_application(self.settings) as application:
            assert application.asgi is not None
            transport = httpx.ASGITransport(application.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                yield Env(http)

    async def started(self) -> list[str]:
        """The addresses of all engines that were ever started, once there is one."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                logs = await asyncio.to_thread(lambda: list(self.folder.glob("data/logs/*-0.log")))
                lines = [line for path in logs for line in path.read_text().splitlines()]
                if lines and lines[0].endswith("}"):
                    return [json.loads(line)["url"] for line in lines if line[:1] == "{"]
                await asyncio.sleep(0.1)

    def found(self, address: str) -> None:
        """Puts it into the list, as what starts engines elsewhere does."""
        port = str(urlsplit(address).port)
        entry = {"name": "box", "address": "127.0.0.1", "port": port}
        beside = self.list.with_suffix(".new")
        beside.write_text(json.dumps({"endpoints": [entry]}))
        beside.rename(self.list)

    def end(self) -> None:
        for path in self.folder.glob("data/scalers/*/*.slot"):
            ProcessSlot(path, 0).signal(signal.SIGKILL)


async def scale(env: Env, fact: Callable[[Any], bool]) -> Any:
    """What `GET /v1/admin/scale/m` answers, once `fact` holds of it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await env.http.get("/v1/admin/scale/m")).json()
            if fact(found):
                return found
            await asyncio.sleep(0.1)


async def test_a_batch_starts_its_engine_and_the_engine_goes_when_there_is_no_work(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    try:
        async with box.lowtide() as env:
            idle = await scale(
                env, lambda reported: reported["scaler"] and reported["scaler"]["target"] == 0
            )
            assert (idle["replicas_wanted"], idle["scaler"]["asked"]) == (0, None)
            batch = await env.start(asks(3))
            (address,) = await box.started()
            waits = await env.until(batch, lambda seen: "scaled to zero" in str(seen.get("reason")))
            assert waits["reason"] == "The model m is scaled to zero, and is asked to start."
            reported = await scale(env, lambda reported: reported["scaler"]["running"] == 1)
            assert (reported["scaler"]["asked"], reported["replicas_present"]) == (1, 0)
        async with box.lowtide() as env:  # restarted: the engine that runs is found again
            box.found(address)
            ended = await env.end(batch)
            assert ended["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
            gone = await scale(env, lambda reported: reported["scaler"]["running"] == 0)
            assert gone["scaler"]["asked"] == 0
            engines = (await env.http.get("/v1/admin/engines")).json()
            assert [each["scaler"] for each in engines["scalers"]] == ["command m"]
            page = (await env.http.get("/console/engines")).text
            assert "Scaler <code>command m</code>: 0 of 0 running, asked for 0 at" in page
            assert await box.started() == [address], "it was started once"
            with pytest.raises(httpx.ConnectError):
                await httpx.AsyncClient(trust_env=False).get(address)
    finally:
        box.end()
