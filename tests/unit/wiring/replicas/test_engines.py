"""From settings and what engines list to the replicas and models of a process."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import certifi
import pytest

from lowtide import limits
from lowtide.config import (
    CatalogueSettings,
    ModelSettings,
    ReplicaSettings,
    ServerSettings,
    Settings,
)
from lowtide.config.sources import ConfigError
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.engines.http.client import HttpEngine
from lowtide.engines.models.model_list import HttpModelList
from lowtide.loops.replicas.replica_set import ReplicaSet
from lowtide.system import SystemClock
from lowtide.wiring.reload import RELOADABLE
from lowtide.wiring.replicas.engines import Engines
from lowtide.wiring.replicas.open_replica import open_replica
from testkit.scripted_engine import ScriptedEngine, reply

OWN = ReplicaSettings(url="http://127.0.0.1:9/v1", models=("own",))


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    replicas = ReplicaSet(open_replica, SystemClock())
    yield Engines(replicas, Catalogue())
    await replicas.aclose()


def replica(host: str = "a", *models: str, **more: Any) -> ReplicaSettings:
    return ReplicaSettings(url=f"http://{host}:1/v1", models=models or ("m",), **more)


def names(engines: Engines) -> dict[str, dict[str, str]]:
    return {u.replica.name: dict(u.engine_names) for u in engines.replicas.upstreams}


async def test_settings_make_replicas_models_prices_and_hours(engines: Engines) -> None:
    model = ModelSettings(
        id="big", aliases=("b",), engine_name="x/big", hours="22:00-06:00", input_price=Decimal(3)
    )
    engines.configure(Settings(model=(model,), replica=(replica("a", "b", "m"),)))
    assert names(engines) == {"a:1": {"big": "x/big", "m": "m"}}
    assert dict(engines.catalogue.names) == {"big": "big", "b": "big", "m": "m"}
    assert list(engines.catalogue.hours) == ["big"]
    dear = Settings(
        model=(ModelSettings(id="big", aliases=("b",), input_price=Decimal(9)),),
        replica=(replica(),),
    )
    before = engines.catalogue.prices["big"]
    engines.configure(dear)
    assert engines.catalogue.prices["big"].live.input == 3 * before.live.input
    assert not engines.catalogue.hours


async def test_live_calls_and_batch_calls_see_the_same_models(engines: Engines) -> None:
    engines.configure(Settings(replica=(replica("a", "*"), replica("b", "*", name="bee"))))
    engines.listed("bee", ("m", "adapter"))
    assert names(engines) == {"a:1": {}, "bee": {"m": "m", "adapter": "adapter"}}
    assert [set(each.engine_names) for each in engines.replicas.live] == [set(), {"m", "adapter"}]
    assert engines.served == {"m", "adapter"}
    engines.listed("bee", ("m",))
    assert engines.served == {"m"}
    assert set(engines.catalogue.accepted) == {"m", "adapter"}, "what was served stays known"


async def test_a_list_goes_with_its_replica(engines: Engines) -> None:
    settings = Settings(replica=(replica("a", "*"),))
    engines.configure(settings)
    engines.listed("a:1", ("m",))
    engines.configure(Settings())
    engines.configure(settings)
    assert names(engines) == {"a:1": {}}


async def test_models_that_nothing_serves_are_refused_where_the_settings_say_so(
    engines: Engines,
) -> None:
    refuse = CatalogueSettings(unserved="refuse")
    engines.configure(Settings(catalogue=refuse, replica=(replica("a", "m", "n"),)))
    engines.configure(Settings(catalogue=refuse, replica=(replica("a", "n"),)))
    assert set(engines.catalogue.accepted) == {"n"}
    assert set(engines.catalogue.names) == {"m", "n"}


async def test_settings_that_cannot_work_change_nothing(engines: Engines) -> None:
    engines.configure(Settings(replica=(replica("a", "m"),)))
    before = list(engines.replicas.upstreams)
    bad = replica("b", "n", headers={"x": "two\nlines"})
    with pytest.raises(ConfigError):
        engines.configure(Settings(replica=(replica("a", "m", window=3), bad)))
    assert list(engines.replicas.upstreams) == before
    assert set(engines.catalogue.names) == {"m"}
    assert engines.replicas.upstreams[0].replica.window_max == limits.WINDOW_MAX


async def test_another_window_takes_effect_on_the_replica_that_is_there(engines: Engines) -> None:
    engines.configure(Settings(replica=(replica("a", "m"),)))
    there = engines.replicas.upstreams[0].replica
    assert there.controller is not None
    work = there.controller.work
    engines.configure(Settings(replica=(replica("a", "m", window=3, drop_fields=("store",)),)))
    (upstream,) = engines.replicas.upstreams
    assert upstream.replica is there and there.controller.work is work
    assert (there.window_max, there.controller.window_max) == (3, 3)
    assert there.window <= 3
    assert "store" in upstream.rules.drop_fields
    engines.configure(Settings(replica=(replica("a", "m", window=9),)))
    assert (there.window_max, there.controller.window) == (9, 9)


async def test_the_embedded_engine_stays_whatever_the_settings_say() -> None:
    replicas = ReplicaSet(open_replica, SystemClock())
    shared = Settings(
        server=ServerSettings(database_url="postgresql://h/d"), replica=(replica("a"),)
    )
    engines = Engines(replicas, Catalogue(), (OWN, ModelEntry(id="own", aliases=("o",))))
    engines.configure(shared)
    assert engines.served == {"m", "own"}
    assert list(replicas.shared) == ["a:1"], "nobody else can reach the embedded one"
    engines.configure(Settings(server=shared.server))
    assert engines.served == {"own"}
    await replicas.aclose()


async def test_seen_models_are_bounded_and_the_oldest_go_first(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MODELS_SEEN_MAX", 2)
    engines.configure(Settings())
    engines.seen(["x", "y"])
    engines.seen(["z"])
    engines.configure(Settings())
    assert set(engines.catalogue.names) == {"y", "z"}


def test_every_key_that_is_reloaded_is_one_of_the_settings() -> None:
    settings = Settings()
    for key in RELOADABLE:
        section, _, name = key.partition(".")
        assert hasattr(settings, section), key
        assert not name or hasattr(getattr(settings, section), name), key


@pytest.mark.parametrize(
    ("answer", "models"),
    [
        (reply({"object": "list", "data": [{"id": "a"}, {"id": "b"}, {"id": "a"}]}), ("a", "b")),
        (reply(b'[{"id": "a"}]'), ("a",)),
        (reply({"data": []}), ()),
        (reply({"data": [{"name": "a"}]}), None),
        (reply({"data": None}), None),
        (reply(b"<html>"), None),
        (reply({"error": {"message": "no"}}, 404), None),
    ],
)
async def test_a_list_of_models_is_read_as_engines_give_it(
    answer: bytes, models: tuple[str, ...] | None
) -> None:
    async with ScriptedEngine((answer,)) as server:
        engine = HttpEngine(server.url)
        assert await HttpModelList(engine).read() == models
        assert server.requests[0].path == "/v1/models"
        assert engine.is_idle
        await engine.aclose()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(Path(certifi.where()).read_bytes())
    return path


def renew(path: Path, more: bytes, *, is_good: bool = True) -> None:
    path.write_bytes((Path(certifi.where()).read_bytes() if is_good else b"") + more)


async def test_another_content_of_a_ca_file_is_read_when_the_settings_are(
    engines: Engines, authority: Path
) -> None:
    trusting = ReplicaSettings(url="https://a:1/v1", models=("m",), ca_file=authority)
    settings = Settings(replica=(trusting, replica("b")))
    engines.configure(settings)
    assert engines.configure(settings).is_empty
    renew(authority, b"# the same, renewed\n")
    assert engines.configure(settings).changed == ("a:1",)
    assert engines.configure(settings).is_empty
    engines.listed("b:1", ("m",))
    renew(authority, b"no certificate", is_good=False)
    with pytest.raises(ConfigError, match="cannot read the certificate bundle"):
        engines.configure(settings)
    engines.listed("b:1", ("n",))
    renew(authority, b"")
    assert engines.configure(settings).changed == ("a:1",)
