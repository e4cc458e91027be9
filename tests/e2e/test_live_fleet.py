"""Live limits over two API processes on one PostgreSQL: the real wiring, in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from product_env import CHAT

from lowtide.config import LimitSettings, ReplicaSettings, ServerSettings, Settings
from lowtide.ports.store import Store
from lowtide.system import SystemClock
from lowtide.wiring import open_application
from testkit.echo_engine import running_echo_engine
from testkit.patience import PATIENCE_S

NAME = "live_requests_per_minute"
ASKED: Mapping[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a"}]}


@asynccontextmanager
async def api(
    folder: Path, database_url: str, engine: str
) -> AsyncIterator[tuple[httpx.AsyncClient, Store]]:
    settings = Settings(
        server=ServerSettings(
            data_dir=folder,
            database_url=database_url,
            blob_url=(folder.parent / "blobs").as_uri(),
            upload_secret="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        ),
        limits=LimitSettings(live_requests_per_minute=60),
        replica=(ReplicaSettings(url=engine, models=("m",), window=8),),
    )
    async with open_application(settings, role="api") as application:
        assert application.asgi is not None
        transport = httpx.ASGITransport(application.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield http, application.store


async def test_a_call_at_one_api_process_counts_at_the_other(
    tmp_path: Path, postgres_url: str
) -> None:
    async with AsyncExitStack() as stack:
        engine = stack.enter_context(running_echo_engine())
        first, _ = await stack.enter_async_context(api(tmp_path / "1", postgres_url, engine.url))
        second, store = await stack.enter_async_context(
            api(tmp_path / "2", postgres_url, engine.url)
        )
        now = SystemClock().now()
        assert (await store.live_rates.read(since=now, now=now)).processes == 2
        answers = [await first.post(CHAT, json=ASKED) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 5
        async with asyncio.timeout(PATIENCE_S):
            while True:
                reported = (await second.get("/v1/limits")).json()["data"]
                used = [each["used"] for each in reported if each["name"] == NAME]
                if any(used):
                    break
                await asyncio.sleep(0.05)
