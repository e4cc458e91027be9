"""A door with two models, a worker to move batches by hand, and creates that can be held up."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import api_server
import msgspec
import pytest
from api_server import ApiServer, new_id, open_door

from lowtide.blobs.url import open_blobs
from lowtide.config import Settings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.batches.batch import Batch, BatchError
from lowtide.core.files.file import File
from lowtide.core.validation.planner import Planner
from lowtide.loops.batches.assemble import AssembleLoop
from lowtide.service.batches.batches import BatchService, Created
from lowtide.service.batches.estimates import EstimateService
from lowtide.service.batches.new_batch import NewBatch
from lowtide.service.models import ModelService
from testkit.manual_worker import ManualWorker

CHAT = "/v1/chat/completions"
CATALOGUE = Catalogue(
    [
        ModelEntry(id="org/m-1", aliases=("m",), input_price=Decimal("0.88"), context_length=4096),
        ModelEntry(id="test-model"),
    ]
)


class HeldBatches(BatchService):
    """Holds up the answer to the next `hold` creates, after their batch was stored."""

    hold = 0

    def arm(self, count: int) -> None:
        self.hold = count
        self.stored = asyncio.Event()
        self.release = asyncio.Event()

    async def create(
        self, project_id: str, user_id: str, asked: NewBatch, *, repeat: bool = False
    ) -> Created:
        created = await super().create(project_id, user_id, asked, repeat=repeat)
        if self.hold:
            self.hold -= 1
            self.stored.set()
            await self.release.wait()
        return created


@dataclass
class Env:
    """What a test needs beside the client under test."""

    http_api: ApiServer
    worker: ManualWorker
    batches: HeldBatches

    def upload(self, requests: int = 3, purpose: str = "batch") -> File:
        file: File = self.http_api.run(self.worker.upload(requests, purpose=purpose))
        return file

    def plan(self) -> Batch:
        batch: Batch = self.http_api.run(self.worker.plan())
        return batch

    def reject(self, errors: Sequence[BatchError], total: int) -> None:
        self.http_api.run(self.worker.reject(errors, total))

    def settle(self, batch_id: str, ok: Sequence[int] = (), bad: Sequence[int] = ()) -> None:
        self.http_api.run(self.worker.settle(batch_id, ok=ok, bad=bad))

    def assemble(self) -> None:
        self.http_api.run(self._assemble())

    def post(self, body: dict[str, Any], path: str = "/v1/batches", **headers: str) -> Any:
        """A create by a client without any SDK."""
        return self.http_api.ask("POST", path, msgspec.json.encode(body), headers)

    async def _assemble(self) -> None:
        store, clock = self.http_api.store, self.http_api.clock
        blobs = open_blobs("file", self.http_api.folder / "blobs")
        loop = AssembleLoop("a", store.lifecycle, store.results, blobs, clock)
        await loop.tick(clock.now())


@contextmanager
def open_bench(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    build = api_server.build

    def furnished(folder: Path, settings: Settings | None = None) -> ApiServer:
        http_api = build(folder, settings)
        allowance = http_api.services.allowance
        batches = HeldBatches(
            http_api.store,
            CATALOGUE,
            http_api.clock,
            new_id,
            allowance,
            lambda _: None,
        )
        estimates = EstimateService(
            open_blobs("file", folder / "blobs"),
            Planner(CATALOGUE, lambda: allowance.defaults),
            allowance,
        )
        http_api.services = replace(
            http_api.services, batches=batches, estimates=estimates, models=ModelService(CATALOGUE)
        )
        return http_api

    monkeypatch.setattr(api_server, "build", furnished)
    with open_door(folder) as http_api:
        blobs = open_blobs("file", folder / "blobs")
        batches = http_api.services.batches
        assert isinstance(batches, HeldBatches)
        yield Env(http_api, ManualWorker(http_api.store, blobs, http_api.clock), batches)
