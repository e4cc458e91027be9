"""What the scalers of Kubernetes and Ray send, and what they say when they are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lowtide.engines.scalers.kubernetes_scale import DeploymentScale
from lowtide.engines.scalers.ray_scale import RayScale
from lowtide.engines.sources.json_http import JsonApi
from lowtide.ports.scalers import Scaler, ScalerError
from testkit.small_http_server import Answer, PlayedCall, small_http_server

SCALE = {"kind": "Scale", "spec": {"replicas": 1}, "status": {"replicas": 1}}
APPLICATIONS = {
    "applications": {
        "llm": {
            "external_scaler_enabled": False,
            "deployments": {"Engine": {"replicas": [{"state": "RUNNING"}, {"state": "STARTING"}]}},
        }
    }
}
CALLS: dict[str, Callable[[Scaler], Any]] = {
    "read": lambda s: s.read(), "ask": lambda s: s.ask(2), "check": lambda s: s.check()
}  # fmt: skip


async def refused(make: Callable[[str], Scaler], answer: Answer, act: str = "ask") -> str:
    async with small_http_server(lambda _: answer) as url:
        scaler = make(url)
        with pytest.raises(ScalerError) as error:
            await CALLS[act](scaler)
        await scaler.aclose()
        return str(error.value).replace(url, "")


def kubernetes(url: str) -> Scaler:
    return DeploymentScale(JsonApi(url), "default", "vllm")


def ray(url: str) -> Scaler:
    return RayScale(JsonApi(url), "llm", "Engine")


async def test_a_token_that_rotates_is_read_again_and_never_told(tmp_path: Path) -> None:
    token, seen = tmp_path / "token", []

    def handler(call: PlayedCall) -> Answer:
        seen.append(call.headers["authorization"])
        return 200, json.dumps(SCALE).encode()

    async with small_http_server(handler) as url:
        scaler = DeploymentScale(JsonApi(url, token_file=token), "default", "vllm")
        for text in ("first", "second"):
            token.write_text(text)
            await scaler.read()
        token.write_text("bad token\n\n")
        await scaler.read()
        token.unlink()
        with pytest.raises(ScalerError, match="cannot be read: No such file"):
            await scaler.read()
        await scaler.aclose()
    assert seen == ["bearer first", "bearer second", "bearer bad token"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, b'{"message": "forbidden: User"}'), "forbidden: User (the service account may get"),
        ((404, b'{"message": "not found"}'), "it answers 404: not found (namespace and deployment"),
        ((500, b"no etcd"), "it answers 500"),
        ((200, b'{"kind": "Scale", "spec": {"replicas": 1}}'), "asked for 2, it took 1"),
        ((200, b'{"kind": "Status"}'), "with kind Status and not with a Scale"),
        ((200, b"[]"), "makes no sense"),
        ((200, b'{"kind": "Scale", "spec": {"replicas": "many"}}'), "makes no sense"),
    ],
)
async def test_kubernetes_refuses_in_words_that_help(answer: Answer, words: str) -> None:
    assert words in await refused(kubernetes, answer)


async def test_an_app_that_ray_does_not_let_others_scale_is_explained() -> None:
    words = await refused(ray, (412, b'{"error": "external_scaler_enabled=false"}'))
    assert "it answers 412: external_scaler_enabled=false" in words
    assert "set external_scaler_enabled: true for the application" in words
    seen = await refused(ray, (200, json.dumps(APPLICATIONS).encode()), "check")
    assert "will refuse any number (412): set external_scaler_enabled" in seen


@pytest.mark.parametrize(
    ("applications", "words"),
    [
        ({}, "no application llm; there are: none"),
        ({"other": {}}, "no application llm; there are: other"),
        ({"llm": {"deployments": {"Router": {}}}}, "llm has no deployment Engine"),
        ({"llm": 1}, "makes no sense"),
    ],
)
async def test_what_ray_does_not_know_is_an_error_and_no_zero(
    applications: Any, words: str
) -> None:
    answer = json.dumps({"applications": applications}).encode()
    assert words in await refused(ray, (200, answer), "read")


async def test_of_rays_replicas_those_count_that_run() -> None:
    async with small_http_server(lambda _: (200, json.dumps(APPLICATIONS).encode())) as url:
        scaler = ray(url)
        status = await scaler.read()
        await scaler.aclose()
    assert (status.target, status.running, status.hides) == (2, 1, True)


async def test_names_are_quoted_into_paths() -> None:
    seen: list[str] = []

    def handler(call: PlayedCall) -> Answer:
        seen.append(call.path)
        return 200, b"{}"

    async with small_http_server(handler) as url:
        scaler = RayScale(JsonApi(url), "my app", "a/b")
        await scaler.ask(1)
        await scaler.aclose()
    assert seen == ["/api/v1/applications/my%20app/deployments/a%2Fb/scale"]
