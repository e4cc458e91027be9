"""The contract of `ports.engine`, held by every adapter; streams have a file of their own."""

import asyncio

import msgspec
import pytest
from engine_adapters import ADAPTERS, ATTEMPT_S, CONNECTIONS_MAX, SHORT_S, post

from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.ports.engine import Engine
from testkit.scripted_engine import Cut, ScriptedEngine, chunked, completion, reply


async def test_the_url_has_no_trailing_slash(upstream: ScriptedEngine) -> None:
    for adapter in ADAPTERS.values():
        engine = adapter(upstream.url + "/")
        assert engine.url == upstream.url
        await engine.aclose()


async def test_a_post_sends_the_body_as_json_and_returns_the_reply(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    attempt = await post(engine, b'{"model": "m"}')
    assert isinstance(attempt, Reply)
    assert attempt.status == 200
    assert msgspec.json.decode(attempt.body) == completion()
    seen = upstream.requests[0]
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.body == b'{"model": "m"}'
    assert seen.headers["content-type"] == "application/json"


async def test_a_get_reaches_the_path_under_the_base_url(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    attempt = await engine.get("/models", ATTEMPT_S)
    assert isinstance(attempt, Reply)
    assert [(seen.method, seen.path) for seen in upstream.requests] == [("GET", "/v1/models")]


@pytest.mark.parametrize("status", [204, 400, 404, 429, 500, 503])
async def test_every_status_is_a_reply(
    engine: Engine, upstream: ScriptedEngine, status: int
) -> None:
    body = b"" if status == 204 else b'{"error": {"message": "no"}}'
    wire = b"HTTP/1.1 204 No Content\r\n\r\n" if status == 204 else reply(body, status)
    upstream.script([wire])
    assert await post(engine) == Reply(status, body)


async def test_a_reply_in_chunks_is_put_together(engine: Engine, upstream: ScriptedEngine) -> None:
    upstream.script([chunked([b'{"a"', b": 1", b"}"])])
    assert await post(engine) == Reply(200, b'{"a": 1}')


async def test_the_time_to_wait_is_read_from_the_reply(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.script([reply({}, 429, {"Retry-After": "7"})])
    assert await post(engine) == Reply(429, b"{}", 7.0)


async def test_connections_are_kept_and_reused(engine: Engine, upstream: ScriptedEngine) -> None:
    for _ in range(5):
        assert isinstance(await post(engine), Reply)
    assert upstream.connections_opened == 1


async def test_an_engine_that_does_not_listen_is_no_connection(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    await upstream.stop()
    attempt = await post(engine)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "connect"
    await upstream.start()
    assert isinstance(await post(engine), Reply)


async def test_no_answer_in_time_is_a_timeout_and_closes_the_connection(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.script([Cut.HANG])
    attempt = await post(engine, timeout_s=SHORT_S)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "timeout"
    await upstream.saw_abandoned(1)


@pytest.mark.parametrize(
    "answer",
    [
        [Cut.CLOSE],
        [Cut.RESET],
        [b"HTTP/1.1 200 OK\r\nContent-", Cut.CLOSE],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Cut.CLOSE],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", Cut.CLOSE],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Cut.RESET],
        [b"SSH-2.0-OpenSSH_9.6\r\n"],
        [b"\x00\x01\x02\x03\r\n\r\n"],
    ],
)
async def test_half_an_answer_or_rubbish_is_broken(
    engine: Engine, upstream: ScriptedEngine, answer: list[bytes | Cut]
) -> None:
    upstream.script(answer)
    attempt = await post(engine)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "broken"
    assert isinstance(await post(engine), Reply)
    assert len(upstream.requests) == 2


async def test_a_cancelled_post_closes_its_connection_at_once(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.script([Cut.HANG])
    call = asyncio.ensure_future(post(engine))
    await upstream.saw_requests(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await upstream.saw_abandoned(1)
    assert isinstance(await post(engine), Reply)


async def test_a_request_that_crossed_the_close_of_a_kept_connection_is_sent_once_more(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.script([reply({})], [Cut.CLOSE])
    assert isinstance(await post(engine, b"first"), Reply)
    assert isinstance(await post(engine, b"second"), Reply)
    assert [seen.body for seen in upstream.requests] == [b"first", b"second", b"second"]
    assert [seen.connection for seen in upstream.requests] == [1, 1, 2]


async def test_a_request_is_not_sent_a_third_time(engine: Engine, upstream: ScriptedEngine) -> None:
    upstream.script([reply({})], [Cut.CLOSE], [Cut.CLOSE])
    await post(engine)
    attempt = await post(engine)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "broken"
    assert len(upstream.requests) == 3


async def test_a_request_is_not_sent_again_after_a_byte_of_an_answer(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.script([reply({})], [b"H", Cut.CLOSE])
    await post(engine)
    attempt = await post(engine)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "broken"
    assert len(upstream.requests) == 2


async def test_many_posts_share_the_connections_allowed(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    bodies = [b"%d" % number for number in range(100)]
    attempts = await asyncio.gather(*(post(engine, body) for body in bodies))
    assert all(isinstance(attempt, Reply) for attempt in attempts)
    assert upstream.connections_peak <= CONNECTIONS_MAX
    assert sorted(seen.body for seen in upstream.requests) == sorted(bodies)


async def test_closing_ends_the_calls_in_flight_as_broken(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.script([Cut.HANG], [Cut.HANG])
    calls = [asyncio.ensure_future(post(engine)) for _ in range(2)]
    await upstream.saw_requests(2)
    await engine.aclose()
    for attempt in await asyncio.gather(*calls):
        assert isinstance(attempt, NoReply)
        assert attempt.kind == "broken"
    await upstream.saw(lambda: upstream.connections_open == 0)


async def test_a_closed_engine_answers_without_trying(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    await engine.aclose()
    await engine.aclose()
    attempt = await post(engine)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "connect"
    assert upstream.requests == []
