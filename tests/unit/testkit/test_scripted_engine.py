"""The scripted engine does what it is told, seen from a bare socket."""

import asyncio

import pytest

from testkit.scripted_engine import Cut, ScriptedEngine, chunked, reply, throttled

REQUEST = b"POST /v1/x HTTP/1.1\r\nHost: t\r\nX-A: b\r\nContent-Length: 2\r\n\r\nhi"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(engine: ScriptedEngine) -> Streams:
    host, port = engine.url.removeprefix("http://").removesuffix("/v1").split(":")
    return await asyncio.open_connection(host, int(port))


async def test_answers_are_played_in_order_and_then_the_other_one() -> None:
    async with ScriptedEngine([b"one"], [b"tw", b"o"], otherwise=[b"rest!"]) as engine:
        reader, writer = await connect(engine)
        for expected in (b"one", b"two", b"rest!", b"rest!"):
            writer.write(REQUEST)
            assert await reader.readexactly(len(expected)) == expected
        writer.close()
        seen = engine.requests[0]
        assert (seen.method, seen.path, seen.body, seen.connection) == ("POST", "/v1/x", b"hi", 1)
        assert seen.headers["x-a"] == "b"


async def test_an_event_holds_an_answer_back() -> None:
    gate = asyncio.Event()
    async with ScriptedEngine([b"a", gate, b"b"]) as engine:
        reader, writer = await connect(engine)
        writer.write(REQUEST)
        assert await reader.readexactly(1) == b"a"
        assert engine.abandoned == []
        gate.set()
        assert await reader.readexactly(1) == b"b"
        writer.close()


async def test_a_client_that_leaves_is_recorded_with_its_request() -> None:
    async with ScriptedEngine([Cut.HANG]) as engine:
        _, writer = await connect(engine)
        writer.write(REQUEST)
        await engine.saw_requests(1)
        writer.close()
        await engine.saw_abandoned(1)
        assert engine.abandoned == engine.requests
        assert engine.connections_open == 0


async def test_a_close_is_orderly_and_a_reset_is_not() -> None:
    async with ScriptedEngine([b"half", Cut.CLOSE], [Cut.RESET]) as engine:
        reader, writer = await connect(engine)
        writer.write(REQUEST)
        assert await reader.read() == b"half"
        writer.close()
        reader, writer = await connect(engine)
        writer.write(REQUEST)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_stopped_engine_refuses_and_comes_back_at_the_same_address() -> None:
    async with ScriptedEngine() as engine:
        url = engine.url
        await engine.stop()
        with pytest.raises(ConnectionRefusedError):
            await connect(engine)
        await engine.start()
        assert engine.url == url
        _, writer = await connect(engine)
        writer.close()


async def test_a_fact_that_never_comes_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testkit.scripted_engine.WAIT_S", 0.01)
    async with ScriptedEngine() as engine:
        with pytest.raises(TimeoutError):
            await engine.saw_requests(1)


def test_the_ready_made_answers_are_well_formed() -> None:
    assert reply(b"ok", 404) == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\nok"
    )
    assert chunked([b"ab", b"c"]).endswith(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    assert b"\r\nRetry-After: 9\r\n" in throttled("9")
