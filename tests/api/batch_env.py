"""An HTTP API with two models, a worker to move batches by hand, creates that can be held up."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import api_server
import msgspec
import pytest
from api_server import ApiServer, open_api_server

from lowtide.blobs.url import open_blobs
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.batches.batch import Batch, BatchError
from lowtide.core.files.file import File
from lowtide.loops.batches.assemble import AssembleLoop
from lowtide.service.batches.batches import BatchService, Created
from testkit.manual_worker import ManualWorker

CHAT = "/v1/chat/completions"
CATALOGUE = Catalogue(
    [
        ModelEntry(id="org/m-1", aliases=("m",), input_price=Decimal("0.88"), context_length=4096),
        ModelEntry(id="test-model"),
    ]
)


class HeldCreates:
    """Holds up the answer to the next `hold` creates, after their batch was stored."""

    def __init__(self, batches: BatchService) -> None:
        self._create = batches.create
        self.hold = 0

    def arm(self, count: int) -> None:
        self.hold = count
        self.stored = asyncio.Event()
        self.release = asyncio.Event()

    async def create(self, *args: Any, **named: Any) -> Created:
        created = await self._create(*args, **named)
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
    batches: HeldCreates

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
    monkeypatch.setattr(api_server, "build", partial(api_server.build, catalogue=CATALOGUE))
    with open_api_server(folder) as http_api:
        blobs = open_blobs("file", folder / "blobs")
        batches = http_api.services.batches
        held = HeldCreates(batches)
        monkeypatch.setattr(batches, "create", held.create)
        yield Env(http_api, ManualWorker(http_api.store, blobs, http_api.clock), held)
