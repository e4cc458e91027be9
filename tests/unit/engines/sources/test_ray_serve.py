"""Ray Serve's applications: which of them are engines, and where."""

import json
from typing import Any

import pytest

from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.engines.sources.json_http import JsonApi
from lowtide.engines.sources.ray_serve import RayServe
from lowtide.ports.sources import Listing, SourceError
from testkit.small_http_server import small_http_server

APPLICATIONS = {
    "llm": {"status": "RUNNING", "route_prefix": "/"},
    "second app": {"status": "RUNNING", "route_prefix": "/second/"},
    "starting": {"status": "DEPLOYING", "route_prefix": "/s"},
    "ill": {"status": "UNHEALTHY", "route_prefix": "/u"},
    "inner": {"status": "RUNNING", "route_prefix": None},
}


async def reported(answer: Any, **more: Any) -> Listing:
    async with small_http_server(lambda _: (200, json.dumps(answer).encode())) as url:
        source = RayServe(JsonApi(url), "head", **more)
        try:
            return await source.read()
        finally:
            await source.aclose()


async def test_applications_that_run_are_engines_at_the_proxy() -> None:
    answer = {"applications": APPLICATIONS, "http_options": {"host": "0.0.0.0", "port": 8123}}
    assert (await reported(answer)).engines == (
        FoundEngine("llm", "head", 8123),
        FoundEngine("second%20app", "head", 8123, path="/second"),
    )
    (only,) = (await reported(answer, application="llm", port=80)).engines
    assert only == FoundEngine("llm", "head", 80)
    assert (await reported(answer, application="starting")).engines == ()


def deployment(*states: str, **config: Any) -> dict[str, Any]:
    """As Ray 2.60 tells it, without the fields that do not count."""
    replicas = [{"replica_id": f"r{n}", "state": state} for n, state in enumerate(states)]
    return {
        "status": "HEALTHY",
        "target_num_replicas": len(states),
        "deployment_config": {"name": "Engine", "max_ongoing_requests": 5, **config},
        "replicas": replicas,
    }


@pytest.mark.parametrize(
    ("deployments", "is_engine"),
    [
        ([deployment("RUNNING", "STARTING")], True),
        ([deployment()], False),  # scaled to zero: RUNNING and HEALTHY all the same
        ([deployment("STARTING", "STARTING")], False),
        ([deployment("STOPPING", "STOPPING")], False),
        ([deployment("RUNNING"), deployment()], False),  # the proxy is there, and nothing behind it
        ([deployment("RUNNING"), deployment("RUNNING")], True),
        ([deployment(autoscaling_config={"min_replicas": 0})], True),  # a call wakes it
        ([deployment(autoscaling_config=None)], False),
    ],
)
async def test_an_application_without_a_replica_is_no_engine_unless_calls_wake_it(
    deployments: list[dict[str, Any]], is_engine: bool
) -> None:
    parts = {f"part {number}": part for number, part in enumerate(deployments)}
    app = {"status": "RUNNING", "route_prefix": "/", "deployments": parts}
    found = (await reported({"applications": {"llm": app}}, application="llm")).engines
    assert [each.name for each in found] == (["llm"] if is_engine else [])


async def test_an_application_that_ray_does_not_know_is_told_with_those_it_does() -> None:
    with pytest.raises(SourceError, match="no application lm; there are: llm"):
        await reported({"applications": {"llm": {}}}, application="lm")
    with pytest.raises(SourceError, match="there are: none"):
        await reported({"applications": {}}, application="lm")


@pytest.mark.parametrize("answer", [{}, [], {"applications": None}, {"applications": {"a": 1}}])
async def test_an_answer_that_makes_no_sense_is_an_error(answer: Any) -> None:
    with pytest.raises(SourceError, match="makes no sense"):
        await reported(answer)
