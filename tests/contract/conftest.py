"""What the contracts of the ports are held against: each adapter as a fixture."""

from collections.abc import AsyncIterator

import pytest
from engine_adapters import ADAPTERS

from lowtide.ports.engine import Engine
from lowtide.ports.store import Store
from lowtide.store.sql_store import SqlStore
from testkit.scripted_engine import ScriptedEngine
from testkit.store_fixture import StoreFixture


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = SqlStore(store_url)
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture
def world(store: Store) -> StoreFixture:
    return StoreFixture(store)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as scripted:
        yield scripted


@pytest.fixture(params=ADAPTERS)
async def engine(request: pytest.FixtureRequest, upstream: ScriptedEngine) -> AsyncIterator[Engine]:
    adapter = ADAPTERS[request.param](upstream.url)
    yield adapter
    await adapter.aclose()
