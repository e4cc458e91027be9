"""engines/metrics/probe.py and readers.py: what answers at a URL, over a real connection."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import engine_pages
import pytest

from lowtide.engines.http.client import HttpEngine
from lowtide.engines.metrics.probe import HttpProber
from lowtide.engines.metrics.readers import PageReader, SlotsReader
from testkit.scripted_engine import Cut, ScriptedEngine, completion, reply

REFUSED = reply({"error": {"message": "priority is not supported by fcfs scheduling"}}, 400)
NO_CHAT = reply({"error": {"message": "The model does not support Chat Completions API"}}, 400)


@asynccontextmanager
async def probing(
    pages: Mapping[str, bytes | Mapping[str, Any]], *answers: bytes, **asked: Any
) -> AsyncIterator[tuple[HttpProber, ScriptedEngine]]:
    async with ScriptedEngine(*[(answer,) for answer in answers]) as server:
        server.pages = {path: (reply(page),) for path, page in pages.items()}
        root = HttpEngine(server.url.removesuffix("/v1"), connections_max=1)
        engine = HttpEngine(server.url, connections_max=1)
        settings = {"kind": "auto", "priority": "auto", "models": lambda: ["m"]} | asked
        yield HttpProber(root, engine, **settings), server
        await root.aclose()
        await engine.aclose()


@pytest.mark.parametrize(
    ("page", "kind", "running"),
    [
        (engine_pages.VLLM, "vllm", 37),
        (engine_pages.SGLANG, "sglang", 21),
        (engine_pages.TGI, "tgi", 14),
        (engine_pages.LLAMACPP, "llamacpp", 3),
    ],
)
async def test_an_engine_is_known_by_its_metrics(page: bytes, kind: str, running: int) -> None:
    async with probing({"/metrics": page}) as (prober, _):
        found = await prober.probe()
        assert found is not None
        assert found.kind == kind
        assert isinstance(found.reader, PageReader)
        reported = await found.reader.read()
        assert reported is not None
        assert reported.running == running


@pytest.mark.parametrize(
    ("page", "name"),
    [
        (engine_pages.VLLM, "vllm:num_requests_running"),
        (engine_pages.SGLANG, "sglang:num_running_reqs"),
        (engine_pages.TGI, "tgi_queue_size"),
        (engine_pages.LLAMACPP, "llamacpp:requests_processing"),
    ],
)
async def test_a_page_whose_key_was_renamed_makes_an_engine_without_metrics(
    page: bytes, name: str
) -> None:
    page = page.replace(name.encode(), f"{name}_v2".encode())
    async with probing({"/metrics": page}, reply(completion())) as (prober, _):
        found = await prober.probe()
    assert found is not None
    assert (found.reader, found.missing) == (None, (name,)), "it works, by its answers"


async def test_a_llamacpp_without_metrics_is_read_by_its_slots() -> None:
    slots = json.dumps([{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}])
    pages: dict[str, Any] = {"/props": {"total_slots": 2}, "/slots": slots.encode()}
    async with probing(pages) as (prober, server):
        found = await prober.probe()
        assert found is not None
        assert (found.kind, type(found.reader)) == ("llamacpp", SlotsReader)
        assert found.reader is not None
        reported = await found.reader.read()
        assert reported is not None
        assert (reported.running, reported.seats_max) == (1, 2)
        server.pages = {}
        assert await found.reader.read() is None


@pytest.mark.parametrize(
    ("pages", "kind"),
    [
        ({"/get_server_info": {"max_running_requests": 8}}, "sglang"),
        ({"/version": {"version": "0.33.0"}}, "vllm"),
        ({}, "openai"),
        ({"/props": b"<html>"}, "openai"),
    ],
)
async def test_an_engine_that_tells_nothing_has_no_reader(
    pages: Mapping[str, Any], kind: str
) -> None:
    async with probing(pages) as (prober, _):
        found = await prober.probe()
        assert found is not None
        assert (found.kind, found.reader) == (kind, None)


async def test_an_engine_that_does_not_answer_is_not_judged() -> None:
    async with probing({}) as (prober, server):
        server.pages = {"/metrics": (Cut.CLOSE,)}
        assert await prober.probe() is None
        await server.stop()
        assert await prober.probe() is None


async def test_a_reader_tells_nothing_when_the_page_is_gone_or_not_an_engines() -> None:
    async with probing({"/metrics": engine_pages.VLLM}) as (prober, server):
        found = await prober.probe()
        assert found is not None and found.reader is not None
        for page in ((reply(b"oops", 500),), (reply(b"<html>"),), (Cut.RESET,)):
            server.pages = {"/metrics": page}
            assert await found.reader.read() is None
        await server.stop()
        assert await found.reader.read() is None


# ---- priority ----


async def test_a_vllm_that_takes_a_priority_is_sent_a_hundred() -> None:
    async with probing({"/metrics": engine_pages.VLLM}) as (prober, server):
        found = await prober.probe()
        assert found is not None
        assert found.priority == 100
        assert json.loads(server.requests[0].body)["priority"] == 100
        assert len(server.requests) == 1


async def test_a_vllm_that_refuses_one_is_sent_none() -> None:
    async with probing({"/metrics": engine_pages.VLLM}, REFUSED) as (prober, server):
        found = await prober.probe()
        assert found is not None
        assert found.priority is None
        assert found.reader is not None
        assert len(server.requests) == 1


async def test_a_model_without_chat_is_asked_by_another_endpoint() -> None:
    answers = (NO_CHAT, reply(completion()))
    async with probing({"/metrics": engine_pages.VLLM}, *answers) as (prober, server):
        found = await prober.probe()
        assert found is not None
        assert found.priority == 100
        assert [seen.path for seen in server.requests] == [
            "/v1/chat/completions",
            "/v1/completions",
        ]


async def test_a_model_that_takes_no_call_at_all_is_sent_none() -> None:
    async with probing({"/metrics": engine_pages.VLLM}, *[NO_CHAT] * 3) as (prober, _):
        found = await prober.probe()
        assert found is not None
        assert found.priority is None


async def test_an_engine_too_busy_to_say_is_asked_again_later() -> None:
    busy = reply({"error": "no room"}, 503)
    async with probing({"/metrics": engine_pages.VLLM}, busy) as (prober, _):
        found = await prober.probe()
        assert found is not None and found.reader is not None
        assert (found.priority, found.is_complete) == (None, False)
        found = await prober.probe()
        assert found is not None
        assert (found.priority, found.is_complete) == (100, True)


async def test_sglang_declares_its_priorities_and_is_not_called_for_them() -> None:
    info = {"enable_priority_scheduling": True, "default_priority_value": 0}
    pages: dict[str, Any] = {"/metrics": engine_pages.SGLANG, "/get_server_info": info}
    async with probing(pages) as (prober, server):
        found = await prober.probe()
        assert found is not None
        assert found.priority == -11
        assert server.requests == []


@pytest.mark.parametrize(("setting", "priority"), [("none", None), (7, 7), (-3, -3)])
async def test_what_the_operator_says_is_not_tried(setting: Any, priority: int | None) -> None:
    async with probing({"/metrics": engine_pages.VLLM}, priority=setting) as (prober, server):
        found = await prober.probe()
        assert found is not None
        assert found.priority == priority
        assert server.requests == []


async def test_the_kind_that_the_operator_names_is_believed() -> None:
    async with probing({"/metrics": engine_pages.VLLM}, kind="openai") as (prober, server):
        found = await prober.probe()
        assert found is not None
        assert (found.kind, found.reader, found.priority) == ("openai", None, None)
        assert server.polls == []
