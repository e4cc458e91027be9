"""What a connection may send before anybody knows who calls, and how slowly."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from connection_cases import ConnectionEnv, answering, reported, settled, wire
from starlette.types import ASGIApp, Receive, Scope, Send

from lowtide import limits
from lowtide.api.http import connections
from lowtide.api.http.bounded_protocol import BoundedHttpProtocol
from lowtide.api.http.connections import UnauthenticatedBounds
from lowtide.api.middleware.caller import accept
from lowtide.core.errors import LowtideError
from lowtide.core.replicas.open_files import OpenFiles

MIB = 1024 * 1024
BLOCK = 64 * 1024
SENT = 16 * MIB  # twice the bound: what does not grow until there does not grow any more
HELD_MAX = 8 * MIB
BOUNDS = UnauthenticatedBounds(
    limits.UNAUTHENTICATED_PER_ADDRESS_MAX,
    limits.UNAUTHENTICATED_MAX,
    limits.UNAUTHENTICATED_BURST_MAX,
)
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v1/files HTTP/1.1\r\nHost: x\r\n"

SHORT_HEADERS = b"".join(b"x-%d: a\r\n" % (n % 1000) for n in range(BLOCK // 8))[:BLOCK]
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

FLOODS: dict[str, tuple[bytes, bytes]] = {
    "one endless header value": (GET + b"X-A: ", b"a" * BLOCK),
    "one endless header name": (GET, b"a" * BLOCK),
    "endless short headers": (GET, SHORT_HEADERS),
    "the shortest headers": (GET, b"a:\r\n" * (BLOCK // 4)),
    "an endless address": (b"GET /", b"a" * BLOCK),
    "an endless method": (b"", b"A" * BLOCK),
    "nothing but line ends": (b"", b"\r\n" * (BLOCK // 2)),
    "endless trailers": (CHUNKED + b"0\r\n", (b"x: " + b"a" * 120 + b"\r\n") * (BLOCK // 125)),
    "an endless chunk extension": (CHUNKED + b"5;", b"a" * BLOCK),
    "a body that nobody reads": (POST + b"Content-Length: 999999999\r\n\r\n", b"a" * BLOCK),
    "chunks that nobody reads": (CHUNKED, b"4000\r\n" + b"a" * 0x4000 + b"\r\n"),
    "pipelined requests": (b"", b"GET / HTTP/1.1\r\n\r\n" * (BLOCK // 18)),
    "a body and then headers": (
        POST + b"Content-Length: 20000\r\n\r\n" + b"a" * 20000,
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * (BLOCK // 4),
    ),
}


async def flood(env: ConnectionEnv, head: bytes, block: bytes, each: int = SENT) -> tuple[int, int]:
    """Send it all, on as many connections as it takes, as a caller does that ignores answers.

    Returns the bytes that were taken from it, and the most that was held at one time.
    """
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        sent = connected = 0
        while sent < SENT and connected < 300:
            protocol = env.connect(f"10.0.0.{connected % 16}")
            connected += 1
            pieces, of_this = iter_from(head, block), 0
            while of_this < each and sent < SENT and takes(protocol):
                piece = next(pieces)
                protocol.data_received(piece)
                sent += len(piece)
                of_this += len(piece)
                await asyncio.sleep(0)
            sent += 0 if of_this == each else BLOCK  # what lies in the socket and is not read
            await env.pass_time(0.02)
        _, most = tracemalloc.get_traced_memory()
        return sent, most - before
    finally:
        tracemalloc.stop()


def iter_from(head: bytes, block: bytes) -> Iterator[bytes]:
    if head:
        yield head
    while True:
        yield block


def takes(protocol: BoundedHttpProtocol) -> bool:
    return wire(protocol).is_reading and not wire(protocol).is_closed


async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
    """As when the database is asked for a key and does not answer."""
    await asyncio.Event().wait()


async def end(env: ConnectionEnv) -> None:
    """No task of the application is left."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await settled()


@pytest.mark.parametrize(
    ("name", "app"),
    [
        *(pytest.param(name, waiting, id=f"looking up: {name}") for name in FLOODS),
        *(
            pytest.param(name, answering(401), id=f"refusing: {name}")
            for name in FLOODS
            if FLOODS[name][0].startswith(POST)
        ),
    ],
)
async def test_anything_sent_before_a_key_is_seen_costs_less_than_8_mib(
    name: str, app: Callable[..., None]
) -> None:
    env = ConnectionEnv(app, BOUNDS)
    sent, most = await flood(env, *FLOODS[name])
    assert most < HELD_MAX
    assert env.connections.held_bytes <= limits.UNAUTHENTICATED_BYTES_MAX + 4 * BLOCK
    await end(env)
    assert sent > 0


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (GET + b"X-A: ", 60_000),
        (GET + b"a:\r\n" * 250, 1),
        (POST + b"Content-Length: 999999\r\n\r\n", BLOCK),
    ],
    ids=["long half heads", "short half heads", "bodies"],
)
async def test_many_connections_that_stop_half_way_hold_no_more_than_one(
    head: bytes, size: int
) -> None:
    env = ConnectionEnv(waiting, BOUNDS)
    _, most = await flood(env, head, b"a" * size, each=len(head) + size)
    assert most < HELD_MAX
    assert env.connections.held_bytes <= limits.UNAUTHENTICATED_BYTES_MAX + BLOCK
    await end(env)


@pytest.mark.parametrize(
    ("head", "block", "status"),
    [
        (GET + b"X-A: ", b"a" * 1000, 431),
        (GET, b"x: y\r\n" * 100, 431),
        (b"GET /", b"a" * 1000, 414),
        (CHUNKED + b"0\r\n", b"x: y\r\n" * 100, 431),
        (b"\x16\x03\x01", b"\0", 400),
    ],
)
async def test_a_refusal_is_told_in_the_envelope_and_the_connection_ends(
    head: bytes, block: bytes, status: int
) -> None:
    env = ConnectionEnv(waiting)
    protocol = env.connect()
    protocol.data_received(head)
    for _ in range(200):
        if reported(protocol) is None:
            protocol.data_received(block)
    assert reported(protocol) == status
    written = bytes(wire(protocol).written)
    assert b"content-type: application/json" in written
    assert b"connection: close" in written
    assert b'{"error":{' in written
    before = len(written)
    protocol.data_received(GET + b"\r\n")
    assert len(wire(protocol).written) == before, "what comes behind is no request"
    await env.pass_time(limits.CONNECTION_LINGER_S)
    assert wire(protocol).is_closed
    await end(env)


async def test_heads_and_bodies_of_good_callers_pass_in_any_pieces() -> None:
    env = ConnectionEnv(answering(accept=True, read=True))
    message = GET.replace(b"GET", b"POST") + b"Content-Length: 100000\r\n\r\n" + b"b" * 100_000
    for step in (7, 1000, 16 * 1024, 16 * 1024 + 1, len(message)):
        protocol = env.connect()
        for turn in range(3):  # kept alive
            for place in range(0, len(message), step):
                protocol.data_received(message[place : place + step])
                if not wire(protocol).is_reading:
                    await settled()
            await settled()
            assert bytes(wire(protocol).written).count(b"HTTP/1.1 200") == turn + 1
    assert len(env.connections) == 0, "they are known"


async def test_trailers_are_dropped_and_change_no_header() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(read=True)(scope, receive, send)
        seen.append(scope["headers"])

    env = ConnectionEnv(app)
    protocol = env.connect()
    protocol.data_received(CHUNKED + b"1\r\na\r\n0\r\nHost: evil\r\nAuthorization: x\r\n\r\n")
    await settled()
    assert seen == [[(b"host", b"x"), (b"transfer-encoding", b"chunked")]]


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHos"])
async def test_whoever_says_nothing_or_half_a_head_is_ended_in_seconds(first: bytes) -> None:
    env = ConnectionEnv(answering())
    protocol = env.connect()
    if first:
        protocol.data_received(first)
    await env.pass_time(limits.REQUEST_HEAD_S - 1)
    assert not wire(protocol).is_closed
    await env.pass_time(3 + limits.CONNECTION_LINGER_S)
    assert wire(protocol).is_closed
    assert reported(protocol) == (408 if first else None)


async def test_a_known_caller_has_as_long_for_each_head_and_any_time_between() -> None:
    env = ConnectionEnv(answering(accept=True))
    protocol = env.connect()
    for _ in range(3):
        protocol.data_received(GET)
        await env.pass_time(limits.REQUEST_HEAD_S - 2)
        protocol.data_received(b"\r\n")
        await settled()
        assert reported(protocol) == 200
        await env.pass_time(5 * limits.REQUEST_HEAD_S)
        assert not wire(protocol).is_closed
    protocol.data_received(GET)
    await env.pass_time(limits.REQUEST_HEAD_S + 1)
    assert reported(protocol) == 408


async def slow_upload(rate: int, every_s: float, seconds: float) -> BoundedHttpProtocol:
    """A body of an accepted caller, so many bytes a second in pieces."""
    env = ConnectionEnv(answering(accept=True, read=True))
    protocol = env.connect()
    protocol.data_received(POST + b"Content-Length: 99999999\r\n\r\n")
    await settled()
    passed_s = 0.0
    while passed_s < seconds and reported(protocol) is None:
        await env.pass_time(every_s)
        passed_s += every_s
        if reported(protocol) is None:
            protocol.data_received(b"a" * int(rate * every_s))
        await settled()
    return protocol


async def test_an_honest_slow_upload_goes_on_for_long() -> None:
    for every_s in (1.0, 30.0):
        protocol = await slow_upload(2 * limits.BODY_RATE_MIN, every_s, 1800)
        assert reported(protocol) is None
        assert not wire(protocol).is_closed


async def test_a_byte_now_and_then_is_no_upload() -> None:
    protocol = await slow_upload(1, 20.0, 1200)
    assert reported(protocol) == 408
    protocol = await slow_upload(limits.BODY_RATE_MIN // 2, 1.0, 1200)
    assert reported(protocol) == 408


async def test_a_body_that_stops_short_is_ended_and_its_request_learns_it() -> None:
    messages = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["connection"].accept("A")
        while True:
            messages.append((await receive())["type"])
            if messages[-1] == "http.disconnect":
                return

    env = ConnectionEnv(app)
    protocol = env.connect()
    protocol.data_received(POST + b"Content-Length: 1000\r\n\r\n" + b"a" * 999)
    await env.pass_time(limits.BODY_STALL_S + 2)
    assert reported(protocol) == 408
    assert messages == ["http.request", "http.disconnect"]


async def test_time_in_which_the_application_does_not_read_is_not_the_callers() -> None:
    go_on = asyncio.Event()

    async def hold() -> None:
        await go_on.wait()

    env = ConnectionEnv(answering(read=True, before=hold))
    protocol = env.connect()
    protocol.data_received(POST + b"Content-Length: 300000\r\n\r\n" + b"a" * 100_000)
    await env.pass_time(10 * limits.BODY_STALL_S)
    assert not wire(protocol).is_reading
    assert reported(protocol) is None
    go_on.set()
    await settled()
    protocol.data_received(b"a" * 200_000)
    await settled()
    assert reported(protocol) == 200


async def test_whoever_waits_for_100_continue_is_not_slow() -> None:
    go_on = asyncio.Event()

    async def hold() -> None:
        await go_on.wait()

    env = ConnectionEnv(answering(accept=True, read=True, before=hold))
    protocol = env.connect()
    protocol.data_received(POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    await env.pass_time(3 * limits.BODY_STALL_S)
    assert reported(protocol) is None
    go_on.set()
    await settled()
    assert reported(protocol) == 100


async def test_a_refused_body_is_dropped_up_to_a_bound_and_not_slowly() -> None:
    env = ConnectionEnv(answering(401))
    protocol = env.connect()
    protocol.data_received(POST + b"Content-Length: 99999999\r\n\r\n" + b"a" * 1000)
    await settled()
    assert reported(protocol) == 401
    assert wire(protocol).is_reading, "so that the caller comes to read the answer"
    await env.pass_time(limits.BODY_STALL_S + 2)
    assert wire(protocol).is_closed


async def test_connections_of_one_address_are_bounded_and_the_oldest_goes() -> None:
    env = ConnectionEnv(answering(), UnauthenticatedBounds(per_address=4, in_all=100, burst=200))
    silent = []
    for _ in range(10):
        silent.append(env.connect())
        env.loop.now_s += 2 * limits.UNAUTHENTICATED_GRACE_S
    assert [wire(each).is_closed for each in silent] == [True] * 6 + [False] * 4
    other = env.connect("10.0.0.2")
    other.data_received(GET + b"\r\n")
    await settled()
    assert reported(other) == 200


async def test_however_many_are_silent_a_health_check_is_answered() -> None:
    env = ConnectionEnv(answering(), UnauthenticatedBounds(per_address=4, in_all=20, burst=40))
    for number in range(500):
        env.connect(f"10.0.{number // 250}.{number % 250}")
    assert len(env.connections) <= 40
    for _ in range(3):
        probe = env.connect("10.9.9.9")
        probe.data_received(GET + b"\r\n")
        await settled()
        assert reported(probe) == 200
    await env.pass_time(2 * limits.UNAUTHENTICATED_GRACE_S)
    assert len(env.connections) <= 20


async def test_a_burst_of_good_callers_from_one_address_loses_nobody() -> None:
    env = ConnectionEnv(
        answering(accept=True), UnauthenticatedBounds(per_address=4, in_all=20, burst=400)
    )
    burst = [env.connect() for _ in range(150)]
    for each in burst:
        each.data_received(GET + b"\r\n")
    await settled()
    assert {reported(each) for each in burst} == {200}
    assert len(env.connections) == 0


async def test_where_everybody_is_being_answered_the_next_is_told_to_come_again() -> None:
    env = ConnectionEnv(waiting, UnauthenticatedBounds(per_address=8, in_all=8, burst=16))
    for number in range(16):
        env.connect(f"10.0.0.{number}").data_received(GET + b"\r\n")
    late = env.connect("10.0.1.1")
    assert reported(late) == 503
    assert b"retry-after" in bytes(wire(late).written)
    assert wire(late).is_closed
    await end(env)


async def owned(scope: Scope, receive: Receive, send: Send) -> None:
    """The path names the organization; 429 where it may have no more connections."""
    try:
        accept(scope, scope["path"])
        status = 200
    except LowtideError as error:
        assert error.code == "rate_limit_exceeded" and error.retry_after_s
        status = 429
    await answering(status)(scope, receive, send)


async def asked(env: ConnectionEnv, owner: bytes, peer: str = "10.0.0.1") -> BoundedHttpProtocol:
    """A new connection, and one request on it."""
    protocol = env.connect(peer)
    protocol.data_received(b"GET /" + owner + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    await settled()
    return protocol


def small(app: ASGIApp, **more: Any) -> ConnectionEnv:
    """A process with room for eight callers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "share_out", lambda *_: OpenFiles(1, 1, 8))
        return ConnectionEnv(app, **more)


async def test_an_organization_with_many_connections_leaves_room_for_others() -> None:
    env = small(owned)
    mine = [await asked(env, b"A") for _ in range(6)]
    assert [reported(each) for each in mine] == [200] * 4 + [429] * 2
    assert reported(await asked(env, b"B")) == 200
    mine[0].connection_lost(None)
    assert reported(await asked(env, b"A")) == 200
    assert reported(await asked(env, b"A")) == 429, "as many as are left free"


async def test_a_known_connection_is_counted_once_and_a_proxys_never() -> None:
    env = small(owned)
    mine = await asked(env, b"A")
    for _ in range(20):
        mine.data_received(b"GET /A HTTP/1.1\r\nHost: x\r\n\r\n")
        await settled()
        assert reported(mine) == 200
    behind = small(owned, proxies=("10.0.0.0/8",))
    assert [reported(await asked(behind, b"A")) for _ in range(8)] == [200] * 8


async def test_silent_connections_without_a_key_make_room_for_new_ones() -> None:
    env = small(answering(200))
    silent = [env.connect(f"10.0.0.{number}") for number in range(8)]
    await env.pass_time(limits.UNAUTHENTICATED_GRACE_S + 1)
    late = await asked(env, b"health", "10.0.1.1")
    assert reported(late) == 200
    assert [wire(each).is_closed for each in silent] == [True] + [False] * 7


async def test_a_burst_beyond_all_room_is_told_to_come_again() -> None:
    env = small(answering(200))
    for number in range(8):
        env.connect(f"10.0.0.{number}")
    assert reported(env.connect("10.0.1.1")) == 503


async def test_behind_a_trusted_proxy_the_named_address_counts_and_is_told() -> None:
    clients = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        clients.append(scope["client"][0])
        await waiting(scope, receive, send)

    bounds = UnauthenticatedBounds(per_address=4, in_all=100, burst=8)
    env = ConnectionEnv(app, bounds, proxies=("10.0.0.0/24",))

    def call(forwarded: bytes, peer: str = "10.0.0.7") -> BoundedHttpProtocol:
        protocol = env.connect(peer)
        protocol.data_received(GET + b"X-Forwarded-For: " + forwarded + b"\r\n\r\n")
        return protocol

    greedy = [call(b"1.1.1.1, 9.9.9.9, 10.0.0.9") for _ in range(5)]
    other = call(b"8.8.8.8")
    await settled()
    assert reported(greedy[-1]) == 503, "one address may have half of the burst"
    assert reported(other) is None
    assert clients == ["9.9.9.9"] * 4 + ["8.8.8.8"]
    call(b"7.7.7.7", peer="6.6.6.6")
    await settled()
    assert clients[-1] == "6.6.6.6", "whoever is no proxy names nobody"
    await end(env)


async def test_a_proxys_connections_are_nobodys_and_may_be_kept_ready() -> None:
    env = ConnectionEnv(
        answering(accept=True), UnauthenticatedBounds(2, 4, 8), proxies=("10.0.0.7",)
    )
    ready = [env.connect("10.0.0.7") for _ in range(20)]
    await env.pass_time(2 * limits.REQUEST_HEAD_S)
    for turn in range(2):
        for each in ready:
            each.data_received(GET + b"X-Forwarded-For: 9.9.9.%d\r\n\r\n" % turn)
            await settled()
            assert reported(each) == 200
    assert len(env.connections) == 0
    assert not any(wire(each).is_closed for each in ready)
