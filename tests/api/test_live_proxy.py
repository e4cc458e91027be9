"""Interactive calls on the wire: what passes unchanged, what is renamed, what is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_env import (
    CHAT,
    DONE,
    END,
    ENGINE_MODEL,
    MODEL,
    SSE_HEAD,
    Env,
    asked,
    chunk_of,
    event,
    live_house,
    streamed,
    wire,
)

from lowtide import limits
from lowtide.config import LimitSettings
from testkit.scripted_engine import Cut, ScriptedEngine, chunked, completion, reply


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as scripted:
        yield scripted


@pytest.fixture
async def env(tmp_path: Path, engine: ScriptedEngine) -> AsyncIterator[Env]:
    async with live_house(tmp_path, engine) as running:
        yield running


def envelope(answer: httpx.Response) -> dict[str, str | None]:
    """The error of an answer, checked to be the one shape that every client reads."""
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, str | None] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert isinstance(error["code"], str | None)
    return error


# ---- what passes ----


@pytest.mark.parametrize("mount", ["/v1", "/openai/v1", "/together/v1", "/v1/v1", ""])
@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings", "responses"])
async def test_every_endpoint_answers_under_every_mount(
    env: Env, engine: ScriptedEngine, mount: str, path: str
) -> None:
    body = (
        b'{ "odd":  1.00000000000000000001, "usage": {"total_tokens": 3},'
        b' "choices": [{}], "data": [1], "output": [1] }'
    )
    engine.script([reply(body)])
    answer = await env.http.post(f"{mount}/{path}", json={"model": MODEL, "input": "x"})
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["x-request-id"].startswith("req_")
    assert engine.requests[0].path == f"/v1/{path}"


async def test_a_body_that_names_the_model_as_the_engine_does_goes_on_byte_for_byte(
    env: Env, engine: ScriptedEngine
) -> None:
    body = (
        b'{"x": "\xc3\xa9\\u00e9" , "seed":12345678901234567890,\n "model":"plain","messages":[]}'
    )
    await env.http.post(CHAT, content=body)
    assert engine.requests[0].body == body


async def test_a_renamed_model_leaves_every_other_value_as_it_is(
    env: Env, engine: ScriptedEngine
) -> None:
    await env.http.post(CHAT, content=b'{"model":"m", "seed":12345678901234567890, "t":1.0e-7}')
    assert engine.requests[0].body == b'{"model":"m-1-fp8","seed":12345678901234567890,"t":1.0e-7}'


async def test_an_alias_reaches_the_engine_under_the_engines_name(
    env: Env, engine: ScriptedEngine
) -> None:
    answer = await env.http.post(CHAT, json=asked() | {"model": "m"})
    assert answer.json() == completion()
    assert json.loads(engine.requests[0].body) == asked() | {"model": ENGINE_MODEL}


async def test_fields_that_the_engine_refuses_are_left_out(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    async with live_house(tmp_path, engine, drop_fields=frozenset({"user"})) as env:
        await env.ask(user="me", seed=1)
    assert json.loads(engine.requests[0].body) == asked(seed=1) | {"model": ENGINE_MODEL}


async def test_a_caller_cannot_overtake_others_in_the_engines_queue(
    env: Env, engine: ScriptedEngine
) -> None:
    await env.ask(priority=-1_000_000, seed=1)
    assert json.loads(engine.requests[0].body) == asked(seed=1) | {"model": ENGINE_MODEL}


async def test_a_prompt_cache_is_kept_apart_by_organization(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    async with live_house(tmp_path, engine, isolates_cache=True) as env:
        for _ in range(2):
            await env.ask(cache_salt="guessed")
        await env.ask()
    salts = [json.loads(request.body)["cache_salt"] for request in engine.requests]
    assert salts[0] == salts[1] != "guessed"
    assert salts[2] not in salts[:2]


async def test_a_response_is_neither_stored_at_the_engine_nor_continued_from_it(
    env: Env, engine: ScriptedEngine
) -> None:
    path, body = "/v1/responses", {"model": MODEL, "input": "x"}
    await env.http.post(path, json=body | {"store": True})
    assert json.loads(engine.requests[0].body)["store"] is False
    refused = await env.http.post(path, json=body | {"previous_response_id": "resp_1"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")
    assert len(engine.requests) == 1


async def test_a_url_reaches_the_engine_only_as_the_operator_allows(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    def about(url: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]

    async with live_house(
        tmp_path, engine, limits=LimitSettings(media_urls=("example.org",))
    ) as env:
        refused = await env.ask(messages=about("http://169.254.169.254/"))
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "url")
        assert "data: URL" in refused.json()["error"]["message"]
        for url in ("https://example.org/a.png", "data:image/png;base64,AA=="):
            assert (await env.ask(messages=about(url))).status_code == 200
    assert len(engine.requests) == 2


async def test_a_stream_passes_byte_for_byte_and_event_by_event(
    env: Env, engine: ScriptedEngine
) -> None:
    go_on = asyncio.Event()
    first, second = event(chunk_of("one")), event(chunk_of("two")) + DONE
    engine.script([SSE_HEAD, wire(first), go_on, wire(second), END])
    async with env.http.stream("POST", CHAT, json=asked(stream=True)) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-accel-buffering"] == "no"
        blocks = answer.aiter_raw()
        assert await anext(blocks) == first  # while the engine still waits for the test
        go_on.set()
        assert b"".join([block async for block in blocks]) == second


async def test_events_cut_anywhere_on_the_way_arrive_whole(
    env: Env, engine: ScriptedEngine
) -> None:
    whole, _ = streamed("a", "b", "c")
    engine.script([chunked_events(whole, 7)])
    async with env.http.stream("POST", CHAT, json=asked(stream=True)) as answer:
        blocks = [block async for block in answer.aiter_raw()]
    assert b"".join(blocks) == whole
    assert all(block.endswith(b"\n\n") for block in blocks)


def chunked_events(data: bytes, size: int) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return SSE_HEAD + b"".join(wire(part) for part in parts) + END


async def test_a_whole_answer_to_a_streaming_call_stays_whole(
    env: Env, engine: ScriptedEngine
) -> None:
    engine.script([chunked([b'{"object":', b'"chat.completion","choices":[{}]}'])])
    answer = await env.ask(stream=True)
    assert answer.content == b'{"object":"chat.completion","choices":[{}]}'
    assert answer.headers["content-length"] == str(len(answer.content))


# ---- what is refused ----


async def test_a_model_that_nobody_knows_is_not_found(env: Env) -> None:
    answer = await env.http.post(CHAT, json=asked() | {"model": "nope"})
    assert answer.status_code == 404
    assert envelope(answer) | {"message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_request"),
        (b"[]", "invalid_request"),
        (b'{"model": "org/m-1"', "invalid_request"),
        (b"[" * 100_000, "invalid_request"),
        (b'{"model": 7}', "invalid_request"),
        (b'{"model": null}', "missing_required_parameter"),
        (b"{}", "missing_required_parameter"),
    ],
)
async def test_a_body_that_cannot_be_routed_is_a_400(env: Env, body: bytes, code: str) -> None:
    answer = await env.http.post(CHAT, content=body)
    assert answer.status_code == 400
    assert envelope(answer)["code"] == code


async def test_a_body_above_the_bound_is_refused(env: Env) -> None:
    answer = await env.http.post(CHAT, content=b" " * (limits.LIVE_BODY_BYTES_MAX + 1))
    assert answer.status_code == 413
    assert envelope(answer)["code"] == "request_too_large"


async def test_another_method_is_told_the_right_one(env: Env) -> None:
    answer = await env.http.get(CHAT)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_model_without_a_replica_is_unavailable_and_says_when_to_ask_again(
    env: Env,
) -> None:
    answer = await env.http.post(CHAT, json=asked() | {"model": "unserved"})
    assert answer.status_code == 503
    assert envelope(answer)["code"] == "model_unavailable"
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_no_replica_that_listens_is_unavailable(
    env: Env, engine: ScriptedEngine, stream: bool
) -> None:
    await engine.stop()
    for _ in range(limits.CIRCUIT_FAILURES + 1):  # before the circuit opens, and after
        answer = await env.ask(stream=stream)
        assert answer.status_code == 503
        assert envelope(answer)["code"] == "model_unavailable"
        assert int(answer.headers["retry-after"]) >= 1
    assert env.replicas[0].replica.circuit.state == "open"


# ---- an engine's refusals ----


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_in_the_envelope_passes_as_it_is(
    env: Env, engine: ScriptedEngine, stream: bool
) -> None:
    body = b'{"error": {"message": "too long", "type": "x", "param": "messages", "code": "len"}}'
    engine.script([reply(body, 400)])
    answer = await env.ask(stream=stream)
    assert (answer.status_code, answer.content) == (400, body)


@pytest.mark.parametrize(
    ("body", "message", "kind"),
    [
        (
            {"error": {"message": "no", "type": "BadRequestError", "code": 400}},
            "no",
            "BadRequestErr",
        ),
        ({"error": "no"}, "no", "invalid_request_error"),
        ({"detail": "Not Found"}, "Not Found", "invalid_request_error"),
        (b"<html>", "The engine behind this model answered 404.", "invalid_request_error"),
    ],
)
async def test_an_error_in_any_other_shape_is_put_in_the_envelope(
    env: Env, engine: ScriptedEngine, body: dict[str, object] | bytes, message: str, kind: str
) -> None:
    engine.script([reply(body, 404)])
    answer = await env.ask()
    assert answer.status_code == 404
    assert envelope(answer)["message"] == message
    assert str(envelope(answer)["type"]).startswith(kind)


@pytest.mark.parametrize("status", [301, 401, 403])
async def test_our_own_problem_with_an_engine_is_no_advice_to_the_client(
    env: Env, engine: ScriptedEngine, status: int
) -> None:
    engine.script([reply({"error": {"message": "bad key sk-123"}}, status)])
    answer = await env.ask()
    assert answer.status_code == 502
    assert envelope(answer)["code"] == "engine_error"
    assert "sk-123" not in answer.text


async def test_back_pressure_passes_with_the_time_to_wait(env: Env, engine: ScriptedEngine) -> None:
    engine.script([reply({"error": {"message": "full"}}, 429, {"Retry-After": "7"})])
    answer = await env.ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_takes_too_long_is_a_504(
    tmp_path: Path, engine: ScriptedEngine, stream: bool
) -> None:
    engine.script([Cut.HANG])
    async with live_house(tmp_path, engine, attempt_s=0.1) as env:
        answer = await env.ask(stream=stream)
    assert answer.status_code == 504
    assert envelope(answer)["code"] == "engine_timeout"


# ---- what is measured ----


async def test_calls_are_counted_timed_and_seen_in_flight(env: Env, engine: ScriptedEngine) -> None:
    before = await metrics(env)
    engine.script([reply(completion())], [Cut.HANG])
    await env.ask()
    held = asyncio.create_task(env.ask())
    await engine.saw_requests(2)
    during = await metrics(env)
    held.cancel()
    await engine.saw_abandoned(1)

    def grown(name: str) -> float:
        return during.get(name, 0.0) - before.get(name, 0.0)

    assert grown(f'lowtide_live_requests_total{{model="{MODEL}",status="200"}}') == 1
    assert grown(f'lowtide_live_in_flight{{model="{MODEL}"}}') == 1
    assert grown(f'lowtide_live_first_byte_seconds_count{{model="{MODEL}"}}') == 1


async def metrics(env: Env) -> dict[str, float]:
    text = (await env.http.get("/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
