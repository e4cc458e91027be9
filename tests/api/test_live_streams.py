"""Streams and retries when things go wrong: engines that die, clients that leave or dawdle."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from live_env import (
    CHAT,
    DONE,
    END,
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
from lowtide.limits import KIB, MIB
from testkit.scripted_engine import Answer, Cut, ScriptedEngine, completion, reply

ONE = event(chunk_of("one"))
BROKEN: dict[str, Answer] = {
    "closed": [Cut.CLOSE],
    "reset": [Cut.RESET],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-", Cut.CLOSE],
    "only a head": [SSE_HEAD, Cut.CLOSE],
    "half an event": [SSE_HEAD, wire(b'data: {"id"'), Cut.CLOSE],
    "500": [reply({"error": {"message": "boom"}}, 500)],
    "503": [reply({"error": {"message": "full"}}, 503)],
    "429": [reply({"error": {"message": "full"}}, 429)],
}


@asynccontextmanager
async def street(folder: Path, count: int) -> AsyncIterator[tuple[Env, list[ScriptedEngine]]]:
    """A node with that many engines."""
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(ScriptedEngine()) for _ in range(count)]
        yield await stack.enter_async_context(live_house(folder, *engines)), engines


async def read_stream(env: Env) -> tuple[int, bytes]:
    async with env.http.stream("POST", CHAT, json=asked(stream=True)) as answer:
        return answer.status_code, await answer.aread()


def called(engines: list[ScriptedEngine]) -> list[int]:
    return sorted(len(engine.requests) for engine in engines)


# ---- before the first byte ----


@pytest.mark.parametrize("first", BROKEN.values(), ids=BROKEN)
async def test_a_stream_that_breaks_before_its_first_event_is_begun_on_another_replica(
    tmp_path: Path, first: Answer
) -> None:
    whole, steps = streamed("a", "b")
    async with street(tmp_path, 2) as (env, engines):
        for engine in engines:
            engine.script(first, steps) if engine is engines[0] else engine.script(steps)
        await make_first(env, engines)
        assert await read_stream(env) == (200, whole)
        assert called(engines) == [1, 1]


async def make_first(env: Env, engines: list[ScriptedEngine]) -> None:
    """Load every replica but the first, so that it is chosen."""
    for live, engine in zip(env.replicas, engines, strict=True):
        assert live.replica.url == engine.url
        live.replica.in_flight = 0 if engine is engines[0] else 100


@pytest.mark.parametrize(
    "first", [Cut.CLOSE, Cut.RESET, reply({"error": {"message": "boom"}}, 500)]
)
async def test_a_whole_answer_that_does_not_come_is_asked_of_another_replica(
    tmp_path: Path, first: bytes | Cut
) -> None:
    async with street(tmp_path, 2) as (env, engines):
        engines[0].script([first])
        await make_first(env, engines)
        answer = await env.ask()
        assert (answer.status_code, answer.json()) == (200, completion())
        assert called(engines) == [1, 1]


async def test_a_replica_that_does_not_listen_is_passed_over(tmp_path: Path) -> None:
    async with street(tmp_path, 2) as (env, engines):
        await make_first(env, engines)
        await engines[0].stop()
        assert (await env.ask()).status_code == 200
        assert len(engines[1].requests) == 1


@pytest.mark.parametrize(("count", "tries"), [(1, 1), (2, 2), (5, limits.LIVE_ATTEMPTS_MAX)])
async def test_refusals_are_tried_elsewhere_a_bounded_number_of_times(
    tmp_path: Path, count: int, tries: int
) -> None:
    body = b'{"error":{"message":"full","type":"overloaded","param":null,"code":null}}'
    async with street(tmp_path, count) as (env, engines):
        for engine in engines:
            engine.otherwise = [reply(body, 503, {"Retry-After": "9"})]
        answer = await env.ask()
        assert (answer.status_code, answer.content) == (503, body)
        assert answer.headers["retry-after"] == "9"
        assert sum(called(engines)) == tries


async def test_a_request_that_kills_engines_is_given_up_before_it_has_met_them_all(
    tmp_path: Path,
) -> None:
    async with street(tmp_path, 4) as (env, engines):
        for engine in engines:
            engine.otherwise = [Cut.RESET]
        answer = await env.ask()
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "engine_error"
        assert sum(called(engines)) == limits.LIVE_BREAKS_MAX


async def test_a_refusal_of_the_request_is_final(tmp_path: Path) -> None:
    async with street(tmp_path, 2) as (env, engines):
        for engine in engines:
            engine.otherwise = [reply({"error": {"message": "no"}}, 400)]
        assert (await env.ask()).status_code == 400
        assert called(engines) == [0, 1]


# ---- after the first byte ----


@pytest.mark.parametrize("cut", [Cut.CLOSE, Cut.RESET])
async def test_a_stream_that_breaks_later_ends_with_an_error_event_and_is_not_begun_again(
    tmp_path: Path, cut: Cut
) -> None:
    async with street(tmp_path, 2) as (env, engines):
        seen = asyncio.Event()
        engines[0].script([SSE_HEAD, wire(ONE), wire(b'data: {"half'), seen, cut])
        await make_first(env, engines)
        async with env.http.stream("POST", CHAT, json=asked(stream=True)) as answer:
            blocks = answer.aiter_raw()
            assert await anext(blocks) == ONE
            seen.set()
            rest = b"".join([block async for block in blocks])
        assert DONE not in rest
        error = json.loads(rest.removeprefix(b"data: "))["error"]
        assert (error["type"], error["code"]) == ("server_error", "engine_error")
        assert called(engines) == [0, 1]


async def test_an_engine_that_keeps_cutting_streams_off_is_not_called_for_a_while(
    tmp_path: Path,
) -> None:
    async with street(tmp_path, 1) as (env, engines):
        engines[0].otherwise = [SSE_HEAD, wire(ONE), Cut.CLOSE]
        for _ in range(limits.CIRCUIT_RATE_SAMPLES_MIN + 1):
            await read_stream(env)
        assert env.replicas[0].replica.circuit.state == "open"
        assert sum(called(engines)) <= limits.CIRCUIT_RATE_SAMPLES_MIN


# ---- clients that leave or dawdle ----


async def leave_after(env: Env, engine: ScriptedEngine, received: bytes, stream: bool) -> None:
    """Call with a bare socket, and hang up once the answer holds `received`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", env.http_api.port)
    body = json.dumps(asked(stream=stream)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    if received:
        await reader.readuntil(received)
    else:
        await engine.saw_requests(1)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("answer", "received", "stream"),
    [
        ([Cut.HANG], b"", False),
        ([Cut.HANG], b"", True),
        ([SSE_HEAD, Cut.HANG], b"", True),
        ([SSE_HEAD, wire(ONE), Cut.HANG], ONE, True),
    ],
    ids=["whole", "no head", "no event", "in the middle"],
)
async def test_a_client_that_leaves_aborts_the_call_upstream_at_once(
    tmp_path: Path, answer: Answer, received: bytes, stream: bool
) -> None:
    async with street(tmp_path, 1) as (env, engines):
        engines[0].script(answer)
        await leave_after(env, engines[0], received, stream)
        await engines[0].saw_abandoned(1)
        assert env.replicas[0].in_flight == 0
        assert env.replicas[0].replica.circuit.state == "closed"
        assert (await env.ask()).status_code == 200


async def test_a_client_that_reads_slowly_slows_the_engine_and_fills_no_memory(
    tmp_path: Path,
) -> None:
    count, text = 3_000, "x" * (16 * KIB)
    block = wire(event(chunk_of(text)))
    async with street(tmp_path, 1) as (env, engines):
        engines[0].script([SSE_HEAD, *([block] * count), wire(DONE), END])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", env.http_api.port, limit=16 * KIB
        )
        body = json.dumps(asked(stream=True)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        first = await reader.read(1)
        assert first == b"H"
        engine_side = next(iter(engines[0]._live))._transport
        sizes = []
        for _ in range(200):  # turns of the loop in which all of it could have passed through
            await asyncio.sleep(0)
            sizes.append(engine_side.get_write_buffer_size())
        assert sizes[-1] > count * len(block) - 16 * MIB  # the rest waits where it came from
        total = 1
        while data := await reader.read(MIB):
            total += len(data)
            if data.endswith(b"0\r\n\r\n"):
                break
        writer.close()
        assert total > count * 16 * KIB
