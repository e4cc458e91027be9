"""`[[source]]`: what its keys must be, and the replica that it makes of an engine."""

from pathlib import Path

import pytest

from lowtide import config, limits
from lowtide.config.sources import ConfigError
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.wiring.replicas.sources import open_source


def load(tmp_path: Path, text: str) -> config.Settings:
    file = tmp_path / "lowtide.toml"
    file.write_text(text)
    return config.load(file, {})


def test_a_source_has_the_keys_of_a_replica_as_a_template(tmp_path: Path) -> None:
    text = "[[source]]\nkind = 'file'\npath = '/e.yaml'\nwindow = 8\nttft_slo_ms = 800\n"
    (source,) = load(tmp_path, text + "headers = { 'x-team' = 'batch' }\n").source
    replica = source.replica_for(FoundEngine("a", "gpu-7", 9000, ("m",), "/app"))
    assert (replica.label, replica.url) == ("a", "http://gpu-7:9000/app/v1")
    assert (replica.window, replica.ttft_slo_ms) == (8, 800)
    assert replica.headers == {"x-team": "batch"}
    assert replica.models == ("m", "*")
    assert "batch" not in repr(source), "headers may hold a secret"


def test_sources_can_come_from_the_environment_as_json() -> None:
    environ = {"LOWTIDE_SOURCE": '[{"kind": "file", "path": "/e.yaml"}]'}
    (source,) = config.load(None, environ).source
    assert source.label == "file /e.yaml"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("path = '/e'", "number 1: needs the key kind"),
        ("kind = 'consul'\npath = '/e'", "[[source]] number 1: kind: must be"),
        ("kind = 'file'", 'given, for kind = "file"'),
        ("kind = 'file'\npath = '/e'\nurl = 'http://h'", "there is no such key"),
        ("kind = 'dns'\nname = 'vllm.test'", "port: must be given: addresses have none"),
        ("kind = 'dns'\nname = '_http._tcp.x'\nport = 1", "port: must be left out: SRV"),
        ("kind = 'dns'\nname = 'x'\nport = 'http'", "port: must be from 1 to 65535"),
        ("kind = 'dns'\nname = 'x'\nport = 1\nnameserver = 'ns.test'", "an IP address"),
        ("kind = 'dns'\nname = 'x'\nport = 1\npath = '/e'", 'path: goes not with kind = "dns"'),
        ("kind = 'kubernetes'\nservice = 's'", "namespace: must be given, for kind"),
        ("kind = 'kubernetes'\nnamespace = 'n'\nservice = 's/../t'", "a name of Kubernetes"),
        ("kind = 'kubernetes'\nnamespace = 'n'\nservice = 's'\nport = 0", "port: must be from"),
        ("kind = 'ray'\ndashboard = 'head:8265'", "begins with http://"),
        ("kind = 'ray'\ndashboard = 'http://u:secret@head'", "without a user"),
        ("kind = 'file'\npath = '/e'\nwindow = 0", "number 1: window: must be from 1"),
        ("kind = 'file'\npath = '/e'\nmodels = ['']", "number 1: models: must be ids"),
        ("kind = 'file'\npath = '/e'\nca_file = '/ca'", "there is no certificate to check"),
        ("kind = 'file'\npath = '/e'\napi_key = 'k'\napi_key_env = 'K'", "goes not with api_key"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, keys: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"[[source]]\n{keys}\n")
    assert words in str(caught.value)


def test_one_place_is_listed_once_and_there_is_a_most(tmp_path: Path) -> None:
    one = "[[source]]\nkind = 'file'\npath = '/e'\n"
    with pytest.raises(ConfigError, match="is that of number 1: list it once"):
        load(tmp_path, one + one)
    many = "".join(one.replace("/e", f"/e{n}") for n in range(limits.SOURCES_MAX + 1))
    with pytest.raises(ConfigError, match="may have 50 entries at most"):
        load(tmp_path, many)


@pytest.mark.parametrize(
    ("keys", "label"),
    [
        ("kind = 'dns'\nname = 'vllm.test'\nport = 8000", "dns vllm.test:8000"),
        ("kind = 'dns'\nname = '_http._tcp.vllm.test'", "dns _http._tcp.vllm.test"),
        (
            "kind = 'kubernetes'\nnamespace = 'n'\nservice = 's'\nport = 'http'",
            "kubernetes n/s:http",
        ),
        (
            "kind = 'ray'\ndashboard = 'http://head:8265'\napplication = 'llm'",
            "ray http://head:8265 llm",
        ),
    ],
)
def test_each_kind_is_called_by_its_place(tmp_path: Path, keys: str, label: str) -> None:
    (source,) = load(tmp_path, f"[[source]]\n{keys}\n").source
    assert source.label == label
    assert isinstance(source.place, tuple)
    open_source(source)  # sends nothing
