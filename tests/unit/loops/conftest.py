"""The loops over the adapters that everybody has: SQLite and a folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from worker_env import WorkerEnv

from lowtide.blobs.url import open_blobs
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import Store
from lowtide.store.sql_store import SqlStore
from testkit.empty_database import place_empty_database


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    path = tmp_path / "lowtide.sqlite"
    place_empty_database(path)
    opened = SqlStore.sqlite(path)
    await opened.open()
    yield opened
    await opened.aclose()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return open_blobs("file", tmp_path / "blobs")


@pytest.fixture
def env(store: Store, blobs: Blobs) -> WorkerEnv:
    return WorkerEnv(store, blobs)
