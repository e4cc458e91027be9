"""From a `[[replica]]` to calls of its engine: key, query, body and what is said of mistakes."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lowtide.config import ReplicaSettings
from lowtide.config.sources import ConfigError
from lowtide.wiring.replicas.engine_clients import engine_client
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import ScriptedEngine

SECRET = "s3cr3t-v4lue"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as scripted:
        yield scripted


def replica(url: str = "http://127.0.0.1:9/v1", **more: Any) -> ReplicaSettings:
    return ReplicaSettings(url=url, models=("m",), **more)


async def authorization(
    settings: ReplicaSettings, upstream: ScriptedEngine, **environ: str
) -> str | None:
    client = engine_client(settings, 1, environ=environ)
    await client.post("/chat/completions", b"{}", PATIENCE_S)
    await client.aclose()
    return upstream.requests[-1].headers.get("authorization")


@pytest.mark.parametrize("way", ["api_key", "api_key_file", "api_key_env"])
async def test_the_key_comes_from_the_settings_a_file_or_a_variable(
    upstream: ScriptedEngine, tmp_path: Path, way: str
) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    value = {"api_key": SECRET, "api_key_file": tmp_path / "key", "api_key_env": "KEY"}[way]
    settings = replica(upstream.url, **{way: value})
    assert await authorization(settings, upstream, KEY=SECRET) == f"Bearer {SECRET}"


async def test_metrics_are_asked_for_beside_v1_with_the_same_query(
    upstream: ScriptedEngine,
) -> None:
    settings = replica(f"{upstream.url}/", query={"api-version": "2024-10-21"})
    client = engine_client(settings, 1, beside_v1=True)
    await client.get("/metrics", PATIENCE_S)
    await client.aclose()
    assert upstream.polls[-1].path == "/metrics?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"api_key_env": "KEY"}, "names the variable KEY, which is not set"),
        ({"api_key_file": Path("/nowhere/key")}, "api_key_file /nowhere/key cannot be read"),
        ({"api_key": f"{SECRET}\nX: y"}, "contains a line break"),
        ({"api_key": SECRET, "headers": {"authorization": SECRET}}, "not both"),
        ({"headers": {"x-team": f"{SECRET}\n"}}, "header x-team contains a line break"),
        ({"url": f"http://me:{SECRET}@host/v1"}, "must not hold user or password"),
        ({"url": f"http://host/v1?key={SECRET}"}, "must not have a query"),
        ({"url": f"http://me:{SECRET}/x@host:port/v1"}, "port that is no number"),
        ({"proxy": f"http://me:{SECRET}@host:port"}, "the proxy has a port"),
        (
            {"url": "https://host/v1", "ca_file": Path("/nowhere/ca.pem")},
            "cannot read the certificate bundle /nowhere/ca.pem",
        ),
    ],
)
def test_what_cannot_work_is_told_without_its_secrets(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        engine_client(replica(**more), 1, environ={})
    assert SECRET not in str(refused.value)
    assert str(refused.value).startswith("[[replica]] ")
