"""The client against a real socket: what the contract suite leaves to the adapter."""

import asyncio
import contextlib
import socket
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import cast

import pytest

from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.core.scheduling.reply_budget import ReplyBudget, ReplyHold
from lowtide.engines.http import connection
from lowtide.engines.http.client import HttpEngine
from lowtide.limits import KIB, MIB, REQUEST_BLOCK_BYTES
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import Cut, ScriptedEngine, chunked, completion, reply

ATTEMPT_S = PATIENCE_S
SHORT_S = 0.3


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as scripted:
        yield scripted


@pytest.fixture
async def engine(upstream: ScriptedEngine) -> AsyncIterator[HttpEngine]:
    client = HttpEngine(upstream.url, api_key="k", headers={"X-Team": "red"})
    yield client
    await client.aclose()


async def test_headers_and_key_are_sent_with_every_request(
    engine: HttpEngine, upstream: ScriptedEngine
) -> None:
    await engine.post("/x", b"{}", ATTEMPT_S)
    await engine.get("/y", ATTEMPT_S)
    for seen in upstream.requests:
        assert seen.headers["authorization"] == "Bearer k"
        assert seen.headers["x-team"] == "red"
        assert seen.headers["user-agent"].startswith("lowtide/")
        assert seen.headers["accept-encoding"] == "identity"
        assert upstream.url == f"http://{seen.headers['host']}/v1"


async def test_a_hundred_calls_at_once_each_get_their_own_answer(
    engine: HttpEngine, upstream: ScriptedEngine
) -> None:
    # Answers leave in the order requests came, so each names the request it belongs to.
    upstream.script(*([reply(b"%d" % number)] for number in range(100)))
    calls = [engine.post("/x", b"%d" % number, ATTEMPT_S) for number in range(100)]
    attempts = await asyncio.gather(*calls)
    by_arrival = {seen.body: b"%d" % index for index, seen in enumerate(upstream.requests)}
    for number, attempt in enumerate(attempts):
        assert attempt == Reply(200, by_arrival[b"%d" % number])


async def test_a_retry_date_is_measured_against_the_clock_given(upstream: ScriptedEngine) -> None:
    upstream.script([reply(b"", 503, {"Retry-After": "Thu, 01 Jan 2026 00:00:42 GMT"})])
    engine = HttpEngine(upstream.url, utc_now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    assert await engine.post("/x", b"", ATTEMPT_S) == Reply(503, b"", 42.0)
    await engine.aclose()


async def test_a_large_body_waits_for_the_engine_to_take_it(
    engine: HttpEngine, upstream: ScriptedEngine
) -> None:
    body = bytes(100 * MIB)
    upstream.stop_reading()
    tracemalloc.start()
    try:
        call = asyncio.ensure_future(engine.post("/x", body, ATTEMPT_S))
        await connected(engine)
        for _ in range(200):  # ample turns for a client that would buffer it all
            await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * REQUEST_BLOCK_BYTES
    assert not call.done()
    upstream.go_on_reading()
    assert isinstance(await call, Reply)
    assert len(upstream.requests[0].body) == len(body)


async def test_a_large_body_arrives_whole(engine: HttpEngine, upstream: ScriptedEngine) -> None:
    body = b"".join(b"%07d" % number for number in range(400_000))
    for _ in range(2):
        assert isinstance(await engine.post("/x", body, ATTEMPT_S), Reply)
    assert [seen.body == body for seen in upstream.requests] == [True, True]
    assert upstream.connections_opened == 1


async def test_an_answer_before_the_end_of_a_large_body_counts(upstream: ScriptedEngine) -> None:
    async with ScriptedEngine(on_connect=[0.05, reply(b"too long", 413)]) as early:
        early.stop_reading()
        engine = HttpEngine(early.url)
        attempt = await engine.post("/x", bytes(32 * MIB), ATTEMPT_S)
        assert attempt == Reply(413, b"too long")
        assert engine.connections_open <= 1
        early.go_on_reading()
        await early.saw(lambda: early.connections_open == 0)
        await engine.aclose()


async def connected(engine: HttpEngine) -> None:
    """Let a call just started run up to where its connection stands on our side too."""
    for _ in range(10_000):
        if engine.connections_open:
            return
        await asyncio.sleep(0)
    raise AssertionError("never connected")


@pytest.mark.parametrize("how", ["timeout", "cancel", "close"])
async def test_a_large_body_that_nobody_reads_can_be_given_up(
    engine: HttpEngine, upstream: ScriptedEngine, how: str
) -> None:
    upstream.stop_reading()
    timeout_s = SHORT_S if how == "timeout" else ATTEMPT_S
    call = asyncio.ensure_future(engine.post("/x", bytes(32 * MIB), timeout_s))
    await connected(engine)
    if how == "cancel":
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    else:
        if how == "close":
            await engine.aclose()
        attempt = await call
        assert isinstance(attempt, NoReply)
        assert attempt.kind == ("timeout" if how == "timeout" else "broken")
    upstream.go_on_reading()
    await upstream.saw(lambda: upstream.connections_open == 0)
    assert upstream.requests == []


async def test_long_replies_share_memory_by_owner_and_all_of_them_come(
    upstream: ScriptedEngine,
) -> None:
    budget, size, most = ReplyBudget(2 * MIB), MIB // 2, 0
    engine = HttpEngine(upstream.url, replies=budget)
    grow = budget.grow

    def watched(hold: ReplyHold, amount: int) -> None:
        nonlocal most
        grow(hold, amount)
        most = max(most, budget.held)

    budget.grow = watched  # type: ignore[method-assign]
    upstream.script(*([reply(bytes(size))] for _ in range(17)))
    posts = [engine.post("/x", b"", ATTEMPT_S, "a") for _ in range(16)]
    answers = await asyncio.gather(*posts, engine.post("/x", b"", ATTEMPT_S, "b"))
    assert [len(cast(Reply, answer).body) for answer in answers] == [size] * 17
    assert budget.held == 0
    assert size < most <= budget.total + size + 17 * 256 * KIB
    await engine.aclose()


async def test_a_reply_larger_than_the_bound_is_cut_off(
    engine: HttpEngine, upstream: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REPLY_BYTES_MAX", 1000)
    monkeypatch.setattr(connection, "REPLY_UNCOUNTED_BYTES", 500)
    upstream.script([chunked([bytes(600), bytes(600)]), Cut.HANG])
    attempt = await engine.post("/x", b"", ATTEMPT_S)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "oversize"
    await upstream.saw_abandoned(1)


async def test_a_short_time_out_after_a_long_one_is_kept(
    engine: HttpEngine, upstream: ScriptedEngine
) -> None:
    await engine.post("/x", b"", 600.0)
    upstream.script([Cut.HANG])
    attempt = await engine.post("/x", b"", SHORT_S)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "timeout"
    assert len(upstream.requests) == 2
    assert upstream.connections_opened == 1


async def test_a_time_out_of_an_earlier_call_does_not_end_a_later_one(
    engine: HttpEngine, upstream: ScriptedEngine
) -> None:
    await engine.post("/x", b"", SHORT_S)
    upstream.script([1.5 * SHORT_S, reply(completion())])  # outlives the first call's timer
    assert isinstance(await engine.post("/x", b"", ATTEMPT_S), Reply)
    assert upstream.connections_opened == 1


async def test_a_trickle_of_bytes_does_not_put_off_the_time_out(
    engine: HttpEngine, upstream: ScriptedEngine
) -> None:
    drops = [step for _ in range(100) for step in (b"x", SHORT_S / 4)]
    upstream.script([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *drops])
    attempt = await engine.post("/x", b"", SHORT_S)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "timeout"
    assert "nothing came" not in attempt.detail


@pytest.mark.parametrize(("connect_s", "attempt_s"), [(SHORT_S, ATTEMPT_S), (ATTEMPT_S, SHORT_S)])
async def test_a_silent_handshake_is_a_connect_time_out(connect_s: float, attempt_s: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody answers
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        engine = HttpEngine(url, verify=False, connect_timeout_s=connect_s)
        attempt = await engine.post("/x", b"", attempt_s)
        assert isinstance(attempt, NoReply)
        assert attempt.kind == "connect"
        assert "not answered in time" in attempt.detail
        await engine.aclose()


async def test_a_name_that_does_not_resolve_is_no_connection() -> None:
    engine = HttpEngine(f"http://{'a' * 64}.invalid/v1")  # a label too long for any resolver
    attempt = await engine.post("/x", b"", ATTEMPT_S)
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "connect"
    await engine.aclose()


async def test_an_engine_that_dies_over_a_repeated_request_is_broken_not_unreachable(
    engine: HttpEngine, upstream: ScriptedEngine
) -> None:
    gone = asyncio.Event()
    upstream.script([reply(b"")], [gone, Cut.RESET])
    await engine.post("/x", b"", ATTEMPT_S)
    call = asyncio.ensure_future(engine.post("/x", b"poison", ATTEMPT_S))
    await upstream.saw_requests(2)
    await upstream.stop()
    attempt = await call
    assert isinstance(attempt, NoReply)
    assert attempt.kind == "broken"


async def test_an_engine_behind_ipv6_is_reached() -> None:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        async with ScriptedEngine(host="::1") as upstream:
            engine = HttpEngine(upstream.url)
            assert isinstance(await engine.post("/x", b"", ATTEMPT_S), Reply)
            assert upstream.requests[0].headers["host"].startswith("[::1]:")
            await engine.aclose()
        return
    pytest.skip("this machine has no IPv6 loopback")


def test_a_client_is_made_without_an_event_loop() -> None:
    assert HttpEngine("http://127.0.0.1:9/v1/").url == "http://127.0.0.1:9/v1"


def test_a_pool_without_connections_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        HttpEngine("http://127.0.0.1:9", connections_max=0)
