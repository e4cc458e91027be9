"""Which models a process knows when it starts, before any engine has answered."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from lowtide import limits
from lowtide.config import ReplicaSettings, Settings
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.loops.replicas.replica_set import ReplicaSet
from lowtide.ports.store import Store
from lowtide.system import SystemClock
from lowtide.wiring.application import listing
from lowtide.wiring.replicas.engines import Engines
from lowtide.wiring.replicas.open_replica import open_replica
from lowtide.wiring.replicas.sources import EngineSources

AWAY = "http://127.0.0.1:9/v1"


class StoreWithBatches:
    """As much of a store as is asked for models."""

    @property
    def work(self) -> "StoreWithBatches":
        return self

    async def named_models(self, limit: int) -> frozenset[str]:
        assert limit == limits.MODELS_SEEN_MAX
        return frozenset({"adapter"})


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    replicas = ReplicaSet(open_replica, SystemClock())
    yield Engines(replicas, Catalogue())
    await replicas.aclose()


@pytest.mark.parametrize(("models", "known"), [(("*",), True), (("m",), False)])
async def test_what_batches_name_is_known_while_an_engine_that_listed_it_is_away(
    engines: Engines, models: tuple[str, ...], *, known: bool
) -> None:
    settings = Settings(replica=(ReplicaSettings(url=AWAY, models=models),))
    engines.configure(settings)
    store: Any = StoreWithBatches()
    clock = SystemClock()
    sources = EngineSources(engines, clock, lambda: None)
    await listing(settings, engines, sources, cast(Store, store), clock)
    assert ("adapter" in engines.catalogue.names) == known
