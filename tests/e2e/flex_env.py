"""A whole Lowtide behind a real socket, for calls whose clients wait, leave and come back."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from product_env import CHAT, replica

from lowtide.cli.server.listening import address_of, bind, listening
from lowtide.config import DispatchSettings, ModelSettings, ServerSettings, Settings
from lowtide.core.accounts.ledger import Cost
from lowtide.core.accounts.tenancy import DEFAULT_PROJECT
from lowtide.core.batches.batch import Batch
from lowtide.service.accounts.usage import UsageService
from lowtide.system import SystemClock
from lowtide.wiring import open_application
from lowtide.wiring.application import Application
from testkit.patience import PATIENCE_S

PRICES: dict[str, Any] = {"input_price": Decimal(2), "output_price": Decimal(8)}
"""Dollars per million tokens, live."""


@dataclass
class FlexEnv:
    """A running server, seen from outside and from inside."""

    application: Application
    url: str
    http: httpx.AsyncClient

    @property
    def database(self) -> Path:
        return self.application.settings.server.data_dir / "lowtide.db"

    def gather_for(self, seconds: float) -> None:
        """Long enough for calls to come together on a busy machine."""
        assert self.application.asgi is not None
        self.application.asgi.state.services.flex._gather_s = seconds

    async def ask(self, text: str = "hi", path: str = CHAT, **more: Any) -> httpx.Response:
        prompt: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
        if path == "/v1/completions":
            prompt = {"prompt": text}
        elif path != CHAT:
            prompt = {"input": text}
        body = {"model": "m", "service_tier": "flex", **prompt, **more}
        return await self.http.post(path, json=body)

    async def batches(self) -> list[Batch]:
        """All that single calls became, by what no list shows."""
        with closing(sqlite3.connect(self.database)) as database:
            rows = database.execute("SELECT id FROM batches WHERE flex IS NOT NULL").fetchall()
        store = self.application.store.batches
        found = [await store.get(DEFAULT_PROJECT, row[0]) for row in rows]
        return [batch for batch in found if batch is not None]

    async def until(self, *statuses: str) -> list[Batch]:
        """Once those batches are in these states."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await self.batches()
                if sorted(batch.status for batch in found) == sorted(statuses):
                    return found
                await asyncio.sleep(0.02)

    async def cost(self) -> Cost:
        """All that the project was charged, by the usage page's own sums."""
        usage = UsageService(self.application.store.ledger, SystemClock())
        return (await usage.report(project_id=DEFAULT_PROJECT)).total


@asynccontextmanager
async def open_flex(
    folder: Path, *engines: Any, models: tuple[ModelSettings, ...] = (), **more: Any
) -> AsyncIterator[FlexEnv]:
    settings = Settings(
        server=ServerSettings(data_dir=folder / "data"),
        dispatch=DispatchSettings(commit_interval_s=0.05, attempts_max=1),
        replica=tuple(replica(engine) for engine in engines),
        model=(ModelSettings(id="m", **PRICES), ModelSettings(id="unserved"), *models),
        **more,
    )
    bound = bind("127.0.0.1", 0)
    async with open_application(settings) as application:
        assert application.asgi is not None
        async with listening(application.asgi, bound):
            url = address_of(bound)
            async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as http:
                yield FlexEnv(application, url, http)
