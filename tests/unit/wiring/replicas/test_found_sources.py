"""From what sources find to the replicas and models of a process."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lowtide.config import ReplicaSettings, Settings, SourceSettings
from lowtide.config.sources import ConfigError
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.loops.replicas.replica_set import ReplicaSet
from lowtide.ports.sources import EngineSource
from lowtide.system import SystemClock
from lowtide.telemetry import source_metrics
from lowtide.wiring.replicas.engines import Engines
from lowtide.wiring.replicas.open_replica import open_replica
from lowtide.wiring.replicas.sources import EngineSources, open_source

ONE, TWO = "file /one.yaml", "file /two.yaml"


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    replicas = ReplicaSet(open_replica, SystemClock())
    yield Engines(replicas, Catalogue())
    await replicas.aclose()


def source(name: str = "one", **more: Any) -> SourceSettings:
    return SourceSettings(kind="file", path=Path(f"/{name}.yaml"), **more)


def engine(name: str, host: str = "10.0.0.1", *models: str) -> FoundEngine:
    return FoundEngine(name, host, 8000, models)


def urls(engines: Engines) -> dict[str, str]:
    return {each.replica.name: each.replica.url for each in engines.replicas.upstreams}


async def test_an_engine_that_was_found_has_the_settings_of_its_source(engines: Engines) -> None:
    engines.configure(Settings(source=(source(window=7, base_path="/openai/v1/", models=("m",)),)))
    assert engines.found({ONE: (engine("a", "fd00::1"),)}) == {}
    (upstream,) = engines.replicas.upstreams
    assert upstream.replica.url == "http://[fd00::1]:8000/openai/v1"
    assert upstream.replica.window_max == 7
    assert engines.served == {"m"}


async def test_without_models_what_the_source_says_and_the_engine_lists_is_served(
    engines: Engines,
) -> None:
    engines.configure(Settings(source=(source(),)))
    engines.found({ONE: (engine("a", "h", "said"),)})
    engines.listed("a", ("said", "adapter"))
    assert engines.served == {"said", "adapter"}


async def test_models_stay_known_when_the_last_engine_has_left(engines: Engines) -> None:
    engines.configure(Settings(source=(source(),)))
    engines.found({ONE: (engine("a", "h", "m"),)})
    engines.found({ONE: ()})
    assert engines.served == frozenset()
    assert set(engines.catalogue.accepted) == {"m"}


async def test_models_of_the_settings_are_known_before_any_engine_was_found(
    engines: Engines,
) -> None:
    engines.configure(Settings(source=(source(models=("m", "*"), names={"n": "their-n"}),)))
    assert set(engines.catalogue.accepted) == {"m", "n"}


async def test_an_engine_that_moves_is_the_same_replica(engines: Engines) -> None:
    engines.configure(Settings(source=(source(),)))
    engines.found({ONE: (engine("a", "10.0.0.1"),)})
    before = engines.replicas.upstreams[0].replica
    engines.found({ONE: (engine("a", "10.0.0.2"),)})
    assert urls(engines) == {"a": "http://10.0.0.2:8000/v1"}
    assert engines.replicas.upstreams[0].replica is before


async def test_one_name_or_address_is_one_replica_and_the_settings_go_first(
    engines: Engines,
) -> None:
    listed = ReplicaSettings(url="http://10.0.0.1:8000/v1", models=("m",), name="rack-1")
    engines.configure(Settings(replica=(listed,), source=(source(), source("two"))))
    one = (engine("a", "10.0.0.1"), engine("b", "10.0.0.2"))
    left_out = engines.found({ONE: one, TWO: (engine("b", "10.0.0.3"), engine("c", "10.0.0.4"))})
    assert list(urls(engines)) == ["rack-1", "b", "c"]
    assert left_out == {
        ONE: "a is left out: its name or address is that of rack-1",
        TWO: "b is left out: its name or address is that of b",
    }
    engines.configure(Settings(source=(source(), source("two"))))
    assert list(urls(engines)) == ["a", "b", "c"], "what was found is kept for other settings"


async def test_a_source_whose_engines_cannot_be_opened_hides_no_other(
    engines: Engines, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    engines.configure(Settings(source=(source(api_key_file=key), source("two"))))
    first = {ONE: (engine("a", "h1"), engine("gone", "h2")), TWO: (engine("b", "h3"),)}
    assert engines.found(first) == {}
    key.unlink()
    second = {
        ONE: (engine("a", "h1"), engine("new", "h4")),
        TWO: (engine("b", "h3"), engine("c", "h5")),
    }
    left_out = engines.found(second)
    assert list(left_out) == [ONE]
    assert "api_key_file" in left_out[ONE]
    assert list(urls(engines)) == ["a", "b", "c"], "one that is not listed any more is gone, too"
    key.write_text("k")
    assert engines.found(second) == {}
    assert list(urls(engines)) == ["a", "new", "b", "c"]


async def test_a_template_that_cannot_work_is_refused_with_the_settings(engines: Engines) -> None:
    engines.configure(Settings(source=(source(),)))
    bad = source("two", api_key_env="NOT_SET_ANYWHERE")
    with pytest.raises(ConfigError, match=r"\[\[source\]\] file /two.yaml: api_key_env names"):
        engines.configure(Settings(source=(source(), bad)))


async def test_an_engine_more_leaves_the_connections_of_the_others_alone(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowtide.wiring.open_files.raise_limit", lambda: 1_024)
    engines.configure(Settings(source=(source(),)))
    many = tuple(engine(f"e{n}", f"10.0.0.{n}") for n in range(16))
    engines.found({ONE: many[:9]})
    before = engines.replicas.members[0].connections
    for count in range(10, 17):
        engines.found({ONE: many[:count]})
    assert engines.replicas.members[0].connections is before


async def test_a_source_to_the_same_place_stays_open_at_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("- {name: a, address: 10.0.0.1, port: 1}\n")
    opened: list[str] = []

    def open_one(settings: SourceSettings) -> EngineSource:
        opened.append(settings.label)
        return open_source(settings)

    clock = SystemClock()
    engines = Engines(ReplicaSet(open_replica, clock), Catalogue())
    sources = EngineSources(engines, clock, lambda: None, open_one)
    for window in (None, 5):
        settings = Settings(source=(SourceSettings(kind="file", path=path, window=window),))
        engines.configure(settings)
        sources.configure(settings)
        await sources.loop.start(clock.now())
    assert opened == [f"file {path}"]
    assert engines.replicas.upstreams[0].replica.window_max == 5
    assert [report.engines for report in sources.reports()] == [("a",)]
    gauge = source_metrics.ENGINES.labels(f"file {path}")
    assert gauge._value.get() == 1
    await sources.loop.aclose()
    await engines.replicas.aclose()


async def test_settings_that_were_refused_are_shown_until_they_are_taken_over() -> None:
    clock = SystemClock()
    engines = Engines(ReplicaSet(open_replica, clock), Catalogue())
    sources = EngineSources(engines, clock, lambda: None)
    sources.settings_refused("server.prot: there is no such key")
    since = sources.reports()[0].stale_since
    sources.settings_refused("still")
    (report,) = sources.reports()
    assert (report.label, report.error, report.stale_since) == ("settings", "still", since)
    sources.configure(Settings())
    assert sources.reports() == ()
    await sources.loop.aclose()
