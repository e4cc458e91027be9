"""One connection, without a network: bytes in, attempts out."""

import asyncio
import gzip
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.faults.outcome import Attempt, NoReply, Reply
from lowtide.core.scheduling.reply_budget import ReplyBudget, ReplyHold
from lowtide.engines.http import connection
from lowtide.engines.http.connection import STALE, Connection
from lowtide.limits import (
    KEEPALIVE_RACE_S,
    REPLY_BYTES_MAX,
    REPLY_HEADER_BYTES_MAX,
    REPLY_UNCOUNTED_BYTES,
)
from testkit.scripted_engine import chunked, reply

OK = reply(b"ok")
FAR = 1e9
BUDGET_BYTES = 1_000_000


class FakeTransport(asyncio.Transport):
    """Remembers whether it was closed; takes everything that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.is_reading = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: object = None) -> object:
        return _FakeSocket()


class _FakeSocket:
    def setsockopt(self, level: int, option: int, value: int) -> None:
        raise OSError("gone")


class Wire:
    """A connection under test, and the far end of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport = FakeTransport()
        self.lost: list[Connection] = []
        self.budget = ReplyBudget(BUDGET_BYTES)
        self.connection = Connection(
            loop, lambda: datetime(2026, 1, 1, tzinfo=UTC), self.lost.append, self.budget
        )
        self.connection.connection_made(self.transport)

    def ask(self, *pieces: bytes) -> asyncio.Future[Attempt]:
        answer = self.connection.expect(self.loop.time(), FAR)
        for piece in pieces:
            self.connection.data_received(piece)
        return answer

    def close(self) -> None:
        self.connection.connection_lost(None)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def wire(loop: asyncio.AbstractEventLoop) -> Iterator[Wire]:
    wire = Wire(loop)
    yield wire
    wire.close()


def no_reply(answer: asyncio.Future[Attempt]) -> NoReply:
    attempt = answer.result()
    assert isinstance(attempt, NoReply)
    return attempt


def test_a_reply_leaves_the_connection_ready_for_the_next(wire: Wire) -> None:
    assert wire.ask(OK).result() == Reply(200, b"ok")
    assert wire.connection.reusable
    assert wire.ask(reply(b"more", 400)).result() == Reply(400, b"more")


@pytest.mark.parametrize("size", [10, 1_000])
def test_a_reply_that_is_compressed_although_not_asked_is_read(wire: Wire, size: int) -> None:
    body = gzip.compress(b'{"a": "b"}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    message = head + body
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    assert wire.ask(*pieces).result() == Reply(200, b'{"a": "b"}')
    assert wire.ask(OK).result() == Reply(200, b"ok")


def test_interim_responses_are_passed_over(wire: Wire) -> None:
    interim = b"HTTP/1.1 100 Continue\r\nRetry-After: 9\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"
    assert wire.ask(interim, OK).result() == Reply(200, b"ok")
    assert wire.connection.reusable


def test_an_offer_to_switch_protocols_is_broken(wire: Wire) -> None:
    switch = b"HTTP/1.1 101 Switching\r\nUpgrade: ws\r\nConnection: upgrade\r\n\r\n"
    assert no_reply(wire.ask(switch)).kind == "broken"
    assert not wire.connection.reusable


def test_a_status_below_100_is_broken(wire: Wire) -> None:
    answer = wire.ask(b"HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n")
    assert no_reply(answer).kind == "broken"


@pytest.mark.parametrize(
    "wire_bytes",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_connection_that_the_engine_will_close_is_not_used_again(
    wire: Wire, wire_bytes: bytes
) -> None:
    assert wire.ask(wire_bytes).result() == Reply(200, b"ok")
    assert not wire.connection.reusable


def test_an_http_1_0_connection_kept_alive_on_purpose_is_used_again(wire: Wire) -> None:
    kept = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
    assert wire.ask(kept).result() == Reply(200, b"ok")
    assert wire.connection.reusable


def test_a_body_without_a_length_ends_with_the_connection(wire: Wire) -> None:
    answer = wire.ask(b"HTTP/1.1 200 OK\r\n\r\n", b"one ", b"two")
    assert not answer.done()
    wire.connection.eof_received()
    assert answer.result() == Reply(200, b"one two")
    assert wire.transport.closed


def test_a_body_without_a_length_that_ends_in_a_reset_is_broken(wire: Wire) -> None:
    answer = wire.ask(b"HTTP/1.1 200 OK\r\n\r\nhalf")
    wire.connection.connection_lost(ConnectionResetError("reset by peer"))
    assert no_reply(answer).kind == "broken"
    assert "reset by peer" in no_reply(answer).detail


@pytest.mark.parametrize("behind", [b"HTTP/1.1 20", OK, b"rubbish", b"\r\n\r\nHTTP/1.1 200 OK\r\n"])
def test_bytes_behind_a_reply_never_reach_the_next_request(wire: Wire, behind: bytes) -> None:
    assert wire.ask(OK + behind).result() == Reply(200, b"ok")
    assert not wire.connection.reusable


def test_bytes_that_nobody_asked_for_close_an_idle_connection(wire: Wire) -> None:
    wire.ask(OK)
    wire.connection.data_received(reply(b"late", 408))
    assert wire.transport.closed
    assert not wire.connection.reusable


def test_a_length_above_the_bound_is_oversize_before_a_byte_of_body(wire: Wire) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    assert no_reply(wire.ask(head % (REPLY_BYTES_MAX + 1))).kind == "oversize"
    assert not wire.connection.reusable


def test_a_length_of_a_thousand_digits_is_refused(wire: Wire) -> None:
    answer = wire.ask(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 1000 + b"\r\n\r\n")
    assert no_reply(answer).kind in ("oversize", "broken")


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"])
def test_a_body_that_grows_above_the_bound_is_oversize(
    wire: Wire, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REPLY_BYTES_MAX", 10)
    monkeypatch.setattr(connection, "REPLY_UNCOUNTED_BYTES", 5)
    part = b"6\r\n" if head.startswith(b"T") else b""
    end = b"\r\n" if head.startswith(b"T") else b""
    answer = wire.ask(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n", part + b"123456" + end)
    assert not answer.done()
    wire.connection.data_received(part + b"789012" + end)
    assert no_reply(answer).kind == "oversize"


def test_headers_above_the_bound_are_oversize(wire: Wire) -> None:
    lines = b"X-Pad: " + b"x" * 1000 + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\n" + lines * (REPLY_HEADER_BYTES_MAX // 1000 + 1)
    assert no_reply(wire.ask(head + b"Content-Length: 0\r\n\r\n")).kind == "oversize"


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nX-Endless: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;extension=",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: ",
    ],
)
def test_a_line_without_end_is_oversize(wire: Wire, start: bytes) -> None:
    answer = wire.ask(start)
    for _ in range(REPLY_HEADER_BYTES_MAX // 8192 + 1):
        wire.connection.data_received(b"x" * 8192)
    assert no_reply(answer).kind == "oversize"
    assert wire.transport.closed


def test_a_trailer_changes_nothing_about_the_reply(wire: Wire) -> None:
    trailers = b"Retry-After: 9\r\nX-Digest: abc\r\n"
    whole = chunked([b"ok"]).removesuffix(b"\r\n") + trailers + b"\r\n"
    assert wire.ask(whole).result() == Reply(200, b"ok")
    assert wire.connection.reusable


def test_a_kept_connection_lost_before_any_byte_is_stale(wire: Wire) -> None:
    wire.ask(OK)
    answer = wire.ask()
    wire.connection.eof_received()
    assert answer.result() is STALE


def test_a_first_request_is_never_stale(wire: Wire) -> None:
    answer = wire.ask()
    wire.connection.eof_received()
    assert no_reply(answer) is not STALE
    assert no_reply(answer).kind == "broken"


def test_an_engine_that_dies_over_a_request_did_not_lose_a_race(wire: Wire) -> None:
    wire.ask(OK)
    long_ago = wire.loop.time() - KEEPALIVE_RACE_S
    answer = wire.connection.expect(long_ago, FAR)
    wire.connection.eof_received()
    assert no_reply(answer) is not STALE


def test_the_loss_is_told_to_the_owner_once(wire: Wire) -> None:
    wire.connection.connection_lost(None)
    assert wire.lost == [wire.connection]
    assert wire.connection.closed.done()


# ---- the same reply, however the network cuts it ----

BODIES = st.binary(max_size=300)
PADDING = st.lists(
    st.tuples(
        st.text("abcXYZ-", min_size=1, max_size=12).map(lambda name: f"X-{name}"),
        st.text("abc 123;=,", max_size=30),
    ),
    max_size=4,
)


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, Reply, bool]:
    """(bytes on the wire, the reply they spell, whether the close ends them)."""
    body = draw(BODIES)
    status = draw(st.sampled_from([200, 201, 400, 404, 429, 500, 503]))
    framing = draw(st.sampled_from(["length", "chunks", "close"]))
    lines = [f"{name}: {value}" for name, value in draw(PADDING)]
    wait_s = draw(st.none() | st.integers(0, 3600))
    if wait_s is not None:
        lines.append(f"Retry-After: {wait_s}")
    payload = body
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunks":
        lines.append("Transfer-Encoding: chunked")
        size = draw(st.integers(1, 50))
        parts = [body[start : start + size] for start in range(0, len(body), size)]
        payload = chunked(parts).partition(b"\r\n\r\n")[2]
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    head = "\r\n".join([f"HTTP/1.1 {status} Any", *draw(st.permutations(lines))])
    wire = interim + head.encode() + b"\r\n\r\n" + payload
    return wire, Reply(status, body, wait_s), framing == "close"


@given(replies(), st.lists(st.integers(0, 1200), max_size=12))
def test_a_reply_is_the_same_wherever_the_network_cuts_it(
    case: tuple[bytes, Reply, bool], cuts: list[int]
) -> None:
    whole, expected, ends_with_close = case
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[start:end] for start, end in itertools.pairwise(edges)]
    loop = asyncio.new_event_loop()
    try:
        wire = Wire(loop)
        answer = wire.ask(*pieces)
        if ends_with_close:
            wire.connection.eof_received()
        assert answer.result() == expected
        assert wire.connection.reusable is not ends_with_close
        wire.close()
    finally:
        loop.close()


def test_a_reply_is_the_same_byte_by_byte(wire: Wire) -> None:
    whole = chunked([b"one ", b"two ", b"three"])
    pieces = [whole[index : index + 1] for index in range(len(whole))]
    assert wire.ask(*pieces).result() == Reply(200, b"one two three")
    assert wire.connection.reusable


@given(st.binary(min_size=1, max_size=400), st.booleans())
def test_no_bytes_whatsoever_can_raise(rubbish: bytes, with_head: bool) -> None:
    loop = asyncio.new_event_loop()
    try:
        wire = Wire(loop)
        answer = wire.ask((b"HTTP/1.1 200 OK\r\n" if with_head else b"") + rubbish)
        wire.connection.eof_received()
        assert isinstance(cast(object, answer.result()), Reply | NoReply)
        wire.close()
    finally:
        loop.close()


HEAD_OF_HALF = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BUDGET_BYTES // 2 + 2)


def kept_by_others(wire: Wire) -> ReplyHold:
    """Half of the budget: what is left to the connection under test."""
    other = ReplyHold(wire.budget, lambda _: None)
    other.owner = "other"
    other.reach(BUDGET_BYTES // 2)
    return other


def test_a_long_reply_counts_until_it_is_whole(wire: Wire) -> None:
    wire.connection.hold.owner = "a"
    answer = wire.ask(HEAD_OF_HALF, bytes(REPLY_UNCOUNTED_BYTES))
    assert wire.budget.held == 0
    wire.connection.data_received(b"x")
    assert wire.budget.held == REPLY_UNCOUNTED_BYTES + 1
    wire.connection.data_received(bytes(BUDGET_BYTES // 2 + 1 - REPLY_UNCOUNTED_BYTES))
    assert answer.done()
    assert wire.budget.held == 0


def test_above_its_owners_share_a_reply_is_read_when_there_is_room(wire: Wire) -> None:
    others = kept_by_others(wire)
    turn = ReplyHold(wire.budget, lambda _: None)
    turn.owner = "other"
    turn.reach(1)  # above their share: the turn is theirs
    answer = wire.ask(HEAD_OF_HALF, bytes(BUDGET_BYTES // 3))
    assert not wire.transport.is_reading
    others.end()
    assert wire.transport.is_reading
    wire.connection.data_received(bytes(BUDGET_BYTES // 2 + 2 - BUDGET_BYTES // 3))
    assert answer.done()
    assert wire.connection.reusable
    assert wire.transport.is_reading


@pytest.mark.parametrize("end", ["abort", "lost"])
def test_a_reply_that_waits_gives_its_bytes_back_when_its_call_ends(wire: Wire, end: str) -> None:
    kept_by_others(wire)
    wire.ask(HEAD_OF_HALF, bytes(BUDGET_BYTES // 3))
    assert wire.budget.held > BUDGET_BYTES // 2
    if end == "abort":
        wire.connection.abort()
    else:
        wire.connection.connection_lost(None)
    assert wire.budget.held == BUDGET_BYTES // 2
