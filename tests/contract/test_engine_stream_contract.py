"""The contract of `ports.engine.StreamingEngine`: replies that are handed on while they come."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import cast

import pytest
from engine_adapters import ATTEMPT_S, CHAT, CONNECTIONS_MAX, SHORT_S, post

from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.limits import KIB, LIVE_BUFFER_BYTES
from lowtide.ports.engine import Engine, ReplyStream, StreamingEngine
from testkit.scripted_engine import Cut, ScriptedEngine, chunked, completion, reply

Opened = AbstractAsyncContextManager[ReplyStream | NoReply]

SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(engine: Engine, body: bytes = b"{}", timeout_s: float = ATTEMPT_S) -> Opened:
    return cast(StreamingEngine, engine).open_stream(CHAT, body, timeout_s)


async def read_all(reply: ReplyStream) -> tuple[bytes, NoReply | None]:
    """Everything that came, and what ended it if not the end of the reply."""
    found = b""
    while block := await reply.read():
        if isinstance(block, NoReply):
            return found, block
        found += block
    return found, None


async def test_a_stream_hands_on_each_block_when_it_comes(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    go_on = asyncio.Event()
    upstream.script([SSE_HEAD + chunk(b"one"), go_on, chunk(b"two") + b"0\r\n\r\n"])
    async with stream(engine, b'{"stream": true}') as reply:
        assert not isinstance(reply, NoReply)
        assert (reply.status, reply.content_type) == (200, "text/event-stream")
        assert await reply.read() == b"one"
        go_on.set()
        assert await reply.read() == b"two"
        assert await reply.read() == b""
        assert await reply.read() == b""
    assert upstream.requests[0].body == b'{"stream": true}'
    assert upstream.abandoned == []


async def test_the_connection_of_a_stream_read_to_its_end_is_used_again(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.otherwise = [chunked([b"a", b"b"])]
    for _ in range(3):
        async with stream(engine) as reply:
            assert not isinstance(reply, NoReply)
            assert await read_all(reply) == (b"ab", None)
    assert isinstance(await post(engine), Reply)
    assert upstream.connections_opened == 1


async def test_a_stream_left_early_closes_its_connection_at_once(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.script([SSE_HEAD + chunk(b"one"), Cut.HANG])
    async with stream(engine) as reply:
        assert not isinstance(reply, NoReply)
        assert await reply.read() == b"one"
    await upstream.saw_abandoned(1)
    assert isinstance(await post(engine), Reply)


@pytest.mark.parametrize("answer", [[Cut.HANG], [SSE_HEAD, Cut.HANG]], ids=["head", "block"])
async def test_a_cancelled_stream_closes_its_connection_at_once(
    engine: Engine, upstream: ScriptedEngine, answer: list[bytes | Cut]
) -> None:
    async def read_one() -> None:
        async with stream(engine) as reply:
            assert not isinstance(reply, NoReply)
            await reply.read()

    upstream.script(answer)
    reading = asyncio.ensure_future(read_one())
    await upstream.saw_requests(1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await upstream.saw_abandoned(1)


@pytest.mark.parametrize("cut", [Cut.CLOSE, Cut.RESET])
async def test_a_stream_cut_in_the_middle_ends_as_broken(
    engine: Engine, upstream: ScriptedEngine, cut: Cut
) -> None:
    seen = asyncio.Event()
    upstream.script([SSE_HEAD + chunk(b"one"), seen, cut])
    async with stream(engine) as reply:
        assert not isinstance(reply, NoReply)
        assert await reply.read() == b"one"
        seen.set()
        end = await reply.read()
        assert isinstance(end, NoReply)
        assert end.kind == "broken"


@pytest.mark.parametrize("answer", [[Cut.CLOSE], [Cut.RESET], [b"SSH-2.0\r\n"]])
async def test_no_head_of_a_stream_is_a_value(
    engine: Engine, upstream: ScriptedEngine, answer: list[bytes | Cut]
) -> None:
    upstream.script(answer)
    async with stream(engine) as reply:
        assert isinstance(reply, NoReply)
        assert reply.kind == "broken"
    await upstream.stop()
    async with stream(engine) as reply:
        assert isinstance(reply, NoReply)
        assert reply.kind == "connect"


@pytest.mark.parametrize("start", [[], [SSE_HEAD + chunk(b"one")]], ids=["head", "block"])
async def test_a_silent_stream_is_a_timeout(
    engine: Engine, upstream: ScriptedEngine, start: list[bytes]
) -> None:
    upstream.script([*start, Cut.HANG])
    async with stream(engine, timeout_s=SHORT_S) as reply:
        if isinstance(reply, NoReply):
            end: object = reply
        else:
            assert await reply.read() == b"one"
            end = await reply.read()
        assert isinstance(end, NoReply)
        assert end.kind == "timeout"
    await upstream.saw_abandoned(1)


async def test_a_stream_may_take_longer_than_one_silence(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    silence_s, steps = 0.1, list[bytes | float]([SSE_HEAD])
    for number in range(12):
        steps += [silence_s, chunk(b"%x" % number)]
    upstream.script([*steps, b"0\r\n\r\n"])
    async with stream(engine, timeout_s=10 * silence_s) as reply:
        assert not isinstance(reply, NoReply)
        assert await read_all(reply) == (b"0123456789ab", None)


async def test_a_stream_that_crossed_the_close_of_a_kept_connection_is_sent_once_more(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.script([reply({})], [Cut.CLOSE], [chunked([b"again"])])
    await post(engine)
    async with stream(engine, b"second") as opened:
        assert not isinstance(opened, NoReply)
        assert await read_all(opened) == (b"again", None)
    assert [seen.body for seen in upstream.requests] == [b"{}", b"second", b"second"]


async def test_a_stream_is_not_sent_a_third_time(engine: Engine, upstream: ScriptedEngine) -> None:
    upstream.script([reply({})], [Cut.CLOSE], [Cut.CLOSE])
    await post(engine)
    async with stream(engine) as opened:
        assert isinstance(opened, NoReply)
        assert opened.kind == "broken"
    assert len(upstream.requests) == 3
    bodies = [b"%d" % number for number in range(2 * CONNECTIONS_MAX)]
    attempts = await asyncio.gather(*(post(engine, body) for body in bodies))
    assert all(isinstance(attempt, Reply) for attempt in attempts)  # no place was lost


async def test_a_reader_that_takes_its_time_holds_the_engine_up(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    block, count = 256 * KIB, 64
    upstream.script([SSE_HEAD, *([chunk(b"x" * block)] * count), b"0\r\n\r\n"])
    async with stream(engine) as reply:
        assert not isinstance(reply, NoReply)
        total = largest = 0
        while found := await reply.read():
            assert isinstance(found, bytes)
            total += len(found)
            largest = max(largest, len(found))
            for _ in range(2 * count):  # turns of the loop in which all of it could have come
                await asyncio.sleep(0)
    assert total == block * count
    assert largest <= LIVE_BUFFER_BYTES + 256 * KIB  # one read of the socket past the bound


async def test_a_stream_that_came_all_at_once_leaves_its_connection_fit_for_the_next(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    large = b"x" * (LIVE_BUFFER_BYTES + 1)
    for _ in range(5):  # more than is buffered: reading stops, and the end is here already
        upstream.script([reply(large)])
        async with stream(engine) as opened:
            assert not isinstance(opened, NoReply)
            assert await read_all(opened) == (large, None)
        assert await post(engine, timeout_s=2.0) == Reply(200, reply_body())
    assert upstream.connections_opened == 1


def reply_body() -> bytes:
    return reply(completion()).partition(b"\r\n\r\n")[2]


async def test_closing_ends_the_streams_in_flight_as_broken(
    engine: Engine, upstream: ScriptedEngine
) -> None:
    upstream.script([SSE_HEAD + chunk(b"one"), Cut.HANG])
    async with stream(engine) as reply:
        assert not isinstance(reply, NoReply)
        assert await reply.read() == b"one"
        await engine.aclose()
        end = await reply.read()
        assert isinstance(end, NoReply)
        assert end.kind == "broken"
