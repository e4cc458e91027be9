"""The pool seen through the client: who gets a connection, when, and when it is closed."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from lowtide.core.faults.outcome import Attempt, NoReply, Reply
from lowtide.engines.http.client import HttpEngine
from lowtide.engines.http.connection import Connection
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import Cut, ScriptedEngine, completion, reply

ATTEMPT_S = PATIENCE_S
SHORT_S = 0.3
OK = reply(completion())


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as scripted:
        yield scripted


@pytest.fixture
async def narrow(upstream: ScriptedEngine) -> AsyncIterator[HttpEngine]:
    """An engine client with a single connection."""
    engine = HttpEngine(upstream.url, connections_max=1)
    yield engine
    await engine.aclose()


def start(
    engine: HttpEngine, body: bytes, timeout_s: float = ATTEMPT_S, owner: str = ""
) -> asyncio.Task[Attempt]:
    return asyncio.ensure_future(engine.post("/x", body, timeout_s, owner))


async def occupied(
    engine: HttpEngine, upstream: ScriptedEngine
) -> tuple[asyncio.Task[Attempt], asyncio.Event]:
    """A call that holds the one connection until the event is set."""
    gate = asyncio.Event()
    upstream.script([gate, OK])
    call = start(engine, b"first")
    await upstream.saw_requests(1)
    return call, gate


async def queued(engine: HttpEngine, count: int) -> None:
    """Let calls just started run up to where they wait for a connection."""
    await turns_until(lambda: len(engine._pool._waiters) == count)


async def turns_until(fact: Callable[[], bool]) -> None:
    """Let the loop turn until a fact on our own side holds."""
    async with asyncio.timeout(ATTEMPT_S):
        while not fact():  # noqa: ASYNC110  the client announces no events to wait for
            await asyncio.sleep(0)


async def test_calls_wait_in_the_order_they_came(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    first, gate = await occupied(narrow, upstream)
    others = [start(narrow, b"%d" % number) for number in range(5)]
    await queued(narrow, 5)
    gate.set()
    await asyncio.gather(first, *others)
    assert [seen.body for seen in upstream.requests] == [b"first", b"0", b"1", b"2", b"3", b"4"]
    assert upstream.connections_opened == 1


async def test_whoever_holds_the_fewest_connections_is_next(upstream: ScriptedEngine) -> None:
    """A holds both and has twenty calls waiting; those of B that came last wait for one of each."""
    engine = HttpEngine(upstream.url, connections_max=2)
    gates = [asyncio.Event() for _ in range(2)]
    upstream.script(*([gate, OK] for gate in gates))
    calls = [start(engine, b"held", owner="A") for _ in gates]
    await upstream.saw_requests(2)
    upstream.script([asyncio.Event(), OK])  # B's first stays with its connection
    calls += [start(engine, b"A%d" % number, owner="A") for number in range(20)]
    calls += [start(engine, b"B%d" % number, owner="B") for number in range(3)]
    await queued(engine, 23)
    gates[0].set()
    await upstream.saw_requests(3)
    gates[1].set()
    await upstream.saw_requests(24)
    bodies = [seen.body for seen in upstream.requests]
    assert bodies[2:5] == [b"B0", b"A0", b"A1"], "one of each, then whoever holds nothing"
    await engine.aclose()
    await asyncio.gather(*calls)


async def test_streams_wait_for_their_turn_like_other_calls(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    first, gate = await occupied(narrow, upstream)
    order: list[bytes] = []

    async def stream(owner: str, body: bytes) -> None:
        async with narrow.open_stream("/x", body, ATTEMPT_S, owner) as opened:
            assert not isinstance(opened, NoReply)
            order.append(body)
            while await opened.read():
                pass

    streams = [asyncio.ensure_future(stream("A", b"A%d" % number)) for number in range(3)]
    streams += [asyncio.ensure_future(stream("B", b"B0"))]
    await queued(narrow, 4)
    gate.set()
    await asyncio.gather(first, *streams)
    assert order == [b"A0", b"B0", b"A1", b"A2"]


async def test_a_waiter_that_is_cancelled_does_not_cost_a_connection(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    first, gate = await occupied(narrow, upstream)
    quitter, patient = start(narrow, b"quitter"), start(narrow, b"patient")
    await queued(narrow, 2)
    quitter.cancel()
    gate.set()
    assert isinstance(await first, Reply)
    assert isinstance(await patient, Reply)
    assert quitter.cancelled()
    assert [seen.body for seen in upstream.requests] == [b"first", b"patient"]


@pytest.mark.parametrize("ending", ["kept", "closed"])
async def test_a_waiter_cancelled_as_it_is_served_passes_its_turn_on(
    narrow: HttpEngine, ending: str
) -> None:
    pool, deadline = narrow._pool, asyncio.get_running_loop().time() + ATTEMPT_S
    held = await pool.obtain(deadline)
    assert isinstance(held, Connection)
    quitter, patient = (asyncio.ensure_future(pool.obtain(deadline)) for _ in range(2))
    await queued(narrow, 2)
    if ending == "closed":
        held.abort()
    pool.release(held)
    quitter.cancel()  # in the very step in which it was handed the place
    served = await patient
    assert isinstance(served, Connection)
    assert (served is held) is (ending == "kept")
    assert quitter.cancelled()
    assert pool._slots_taken == 1
    pool.release(served)


async def test_a_waiter_whose_time_is_up_never_reached_the_engine(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    first, gate = await occupied(narrow, upstream)
    late = await narrow.post("/x", b"late", SHORT_S)
    assert isinstance(late, NoReply)
    assert late.kind == "connect"
    gate.set()
    assert isinstance(await first, Reply)
    assert isinstance(await narrow.post("/x", b"next", ATTEMPT_S), Reply)
    assert [seen.body for seen in upstream.requests] == [b"first", b"next"]


async def test_a_broken_connection_frees_its_place(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    spoke_http = [reply({}, headers={"Connection": "close"}), Cut.CLOSE]
    upstream.script(spoke_http, [Cut.CLOSE], [b"rubbish\r\n"], [Cut.RESET])
    assert isinstance(await start(narrow, b"first"), Reply)  # so nobody asks whether it speaks TLS
    attempts = await asyncio.gather(*(start(narrow, b"%d" % number) for number in range(5)))
    assert [isinstance(attempt, Reply) for attempt in attempts] == [False] * 3 + [True] * 2
    assert upstream.connections_peak == 1


async def test_a_request_sent_again_keeps_its_place(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    upstream.script([OK], [Cut.CLOSE])
    await narrow.post("/x", b"first", ATTEMPT_S)
    attempts = await asyncio.gather(*(start(narrow, b"%d" % number) for number in range(4)))
    assert all(isinstance(attempt, Reply) for attempt in attempts)
    assert [seen.body for seen in upstream.requests] == [b"first", b"0", b"0", b"1", b"2", b"3"]
    assert upstream.connections_opened == 2
    assert narrow._pool._slots_taken == 1


async def test_refused_connections_free_their_places(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    await upstream.stop()
    attempts = await asyncio.gather(*(start(narrow, b"") for _ in range(5)))
    assert {attempt.kind for attempt in attempts if isinstance(attempt, NoReply)} == {"connect"}
    await upstream.start()
    assert isinstance(await narrow.post("/x", b"", ATTEMPT_S), Reply)


async def test_a_call_cancelled_while_connecting_frees_its_place(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    call = start(narrow, b"")
    await asyncio.sleep(0)
    assert narrow._pool._slots_taken == 1
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert narrow._pool._slots_taken == 0
    assert isinstance(await narrow.post("/x", b"", ATTEMPT_S), Reply)


async def test_the_newest_idle_connection_is_used_first(upstream: ScriptedEngine) -> None:
    engine = HttpEngine(upstream.url)
    gates = [asyncio.Event(), asyncio.Event()]
    upstream.script([gates[0], OK], [gates[1], OK])
    older = start(engine, b"")
    await upstream.saw_requests(1)
    newer = start(engine, b"")
    await upstream.saw_requests(2)
    gates[1].set()
    await newer
    gates[0].set()
    await older  # connection 1 went idle last
    for _ in range(3):
        await engine.post("/x", b"", ATTEMPT_S)
    assert [seen.connection for seen in upstream.requests[2:]] == [1, 1, 1]
    await engine.aclose()


async def test_idle_connections_are_closed_after_a_while(upstream: ScriptedEngine) -> None:
    engine = HttpEngine(upstream.url, idle_s=0.05)
    await asyncio.gather(*(start(engine, b"") for _ in range(3)))
    assert upstream.connections_opened == 3
    await upstream.saw(lambda: upstream.connections_open == 0)
    assert engine._pool._slots_taken == 0
    assert isinstance(await engine.post("/x", b"", ATTEMPT_S), Reply)
    await engine.aclose()


async def test_an_idle_connection_that_the_engine_closes_is_forgotten(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    await narrow.post("/x", b"1", ATTEMPT_S)
    upstream.cut_connections()
    await turns_until(lambda: narrow.connections_open == 0)
    assert isinstance(await narrow.post("/x", b"2", ATTEMPT_S), Reply)
    assert len(upstream.requests) == 2


async def test_closing_turns_away_those_who_wait_or_connect(
    narrow: HttpEngine, upstream: ScriptedEngine
) -> None:
    first, _ = await occupied(narrow, upstream)
    waiting = start(narrow, b"")
    await queued(narrow, 1)
    await narrow.aclose()
    attempts = [await first, await waiting]
    assert [attempt.kind for attempt in attempts if isinstance(attempt, NoReply)] == [
        "broken",
        "connect",
    ]
    assert len(upstream.requests) == 1


async def test_closing_does_not_wait_for_a_connection_being_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it will never shake hands
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        engine = HttpEngine(url, verify=False, connect_timeout_s=ATTEMPT_S)
        call = start(engine, b"")
        client, _ = await asyncio.to_thread(silent.accept)
        await engine.aclose()
        attempt = await asyncio.wait_for(call, ATTEMPT_S / 3)
        client.close()
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "connect"
    assert engine._pool._slots_taken == 0
