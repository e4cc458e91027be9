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
    "llm": {"status": "RUNNING", "route_prefix": "/", "deployments": {"d": {"replicas": []}}},
    "second app": {"status": "RUNNING", "route_prefix": "/second/"},
    "starting": {"status": "DEPLOYING", "route_prefix": "/s"},
    "ill": {"status": "UNHEALTHY", "route_prefix": "/u"},
    "inner": {"status": "RUNNING", "route_prefix": None},
}


async def told(answer: Any, **more: Any) -> Listing:
    async with small_http_server(lambda _: (200, json.dumps(answer).encode())) as url:
        source = RayServe(JsonApi(url), "head", **more)
        try:
            return await source.look()
        finally:
            await source.aclose()


async def test_applications_that_run_are_engines_at_the_proxy() -> None:
    answer = {"applications": APPLICATIONS, "http_options": {"host": "0.0.0.0", "port": 8123}}
    assert (await told(answer)).engines == (
        FoundEngine("llm", "head", 8123),
        FoundEngine("second%20app", "head", 8123, path="/second"),
    )
    (only,) = (await told(answer, application="llm", port=80)).engines
    assert only == FoundEngine("llm", "head", 80)
    assert (await told(answer, application="starting")).engines == ()


@pytest.mark.parametrize(
    ("is_external", "states", "is_there"),
    [
        (True, [], False),
        (True, ["STARTING"], False),
        (True, ["STARTING", "RUNNING"], True),
        (False, [], True),
        (None, [], True),
    ],
)
async def test_an_application_that_others_scale_is_an_engine_while_it_has_replicas(
    is_external: bool | None, states: list[str], is_there: bool
) -> None:
    application = {
        "status": "RUNNING",
        "route_prefix": "/",
        "external_scaler_enabled": is_external,
        "deployments": {
            "Router": {"replicas": [{"state": "RUNNING"}]},
            "Engine": {"replicas": [{"state": state} for state in states]},
        },
    }
    assert bool((await told({"applications": {"llm": application}})).engines) == is_there


async def test_an_application_that_ray_does_not_know_is_told_with_those_it_does() -> None:
    with pytest.raises(SourceError, match="no application lm; there are: llm"):
        await told({"applications": {"llm": {}}}, application="lm")
    with pytest.raises(SourceError, match="there are: none"):
        await told({"applications": {}}, application="lm")


@pytest.mark.parametrize("answer", [{}, [], {"applications": None}, {"applications": {"a": 1}}])
async def test_an_answer_that_makes_no_sense_is_an_error(answer: Any) -> None:
    with pytest.raises(SourceError, match="makes no sense"):
        await told(answer)
