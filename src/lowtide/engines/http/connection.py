"""One connection to an engine, and one exchange at a time on it: request out, reply in.

A thin shell over httptools' parser. It is told of an exchange with `expect`, answers through a
future, and never raises for what the network does: each way an exchange can end is an `Attempt`. A
reply that is to be passed on while it comes goes into the exchange's `HttpReplyStream` instead. It
guards the invariant that a reply belongs to the request that it is given to: a connection that
received an unexpected byte, or that ended an exchange in any way but cleanly, is spent and never
used again. pool.py owns connections, and client.py drives them.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from lowtide.core.faults.outcome import Attempt, NoReply, Reply
from lowtide.core.scheduling.reply_budget import ReplyBudget, ReplyHold
from lowtide.engines.http.content_coding import Unpacker
from lowtide.engines.http.retry_after import retry_after_s
from lowtide.engines.http.stream import HttpReplyStream
from lowtide.engines.http.tls_guess import no_http
from lowtide.limits import (
    KEEPALIVE_RACE_S,
    REPLY_BYTES_MAX,
    REPLY_HEADER_BYTES_MAX,
    REPLY_UNCOUNTED_BYTES,
    REQUEST_BLOCK_BYTES,
    TCP_KEEPALIVE_S,
)

STALE: Final = NoReply("broken", "the engine closed a kept-alive connection before any answer")
"""Told apart by identity: the one failure after which the client sends a request again."""

_READ = b"content-length content-type transfer-encoding content-encoding retry-after retry-after-ms"
_HEADERS_READ: Final = frozenset(_READ.split())
_OVERSIZE = NoReply("oversize", f"the answer is larger than {REPLY_BYTES_MAX} bytes")
_OVERSIZE_HEAD = NoReply("oversize", f"its headers are larger than {REPLY_HEADER_BYTES_MAX} bytes")


class Connection(asyncio.Protocol):
    """A client connection; `closed` is done once the socket is gone."""

    __slots__ = (
        "_answer",
        "_body",
        "_body_seen_at",
        "_content_type",
        "_deadline",
        "_framed",
        "_loop",
        "_on_lost",
        "_parser",
        "_received",
        "_result",
        "_resume",
        "_retry_after",
        "_retry_after_ms",
        "_sending",
        "_sent_at",
        "_served",
        "_spent",
        "_status",
        "_stream",
        "_timer",
        "_transport",
        "_unpacker",
        "_utc_now",
        "_write_paused",
        "closed",
        "hold",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        utc_now: Callable[[], datetime],
        on_lost: Callable[["Connection"], None],
        budget: ReplyBudget,
    ) -> None:
        self.hold = ReplyHold(budget, self._pause_reading)  # its owner: whose reply comes next
        self.closed: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._utc_now = utc_now
        self._on_lost = on_lost
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answer: asyncio.Future[Attempt] | None = None
        self._resume: asyncio.Future[None] | None = None
        self._stream: HttpReplyStream | None = None
        self._spent = False
        self._sending = False
        self._write_paused = False
        self._served = 0
        self._deadline = 0.0
        self._sent_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._result: Attempt | None = None
        self._status = 0  # until the head is complete
        self._body: bytes | bytearray = b""
        self._received = 0
        self._body_seen_at = 0  # value of _received when body bytes last came
        self._framed = False  # the head says where the body ends
        self._content_type = b""
        self._unpacker: Unpacker | None = None
        self._retry_after: bytes | None = None
        self._retry_after_ms: bytes | None = None

    # ---- for the pool and the client ----

    @property
    def is_clean(self) -> bool:
        """No exchange is open here, and the last one ended as it should."""
        return self._answer is None and not self._spent

    @property
    def reusable(self) -> bool:
        """Another exchange may begin here: it is clean, and its socket is open."""
        transport = self._transport
        return self.is_clean and transport is not None and not transport.is_closing()

    def expect(
        self, now: float, deadline: float, stream: HttpReplyStream | None = None
    ) -> asyncio.Future[Attempt]:
        """Begins an exchange; the caller writes the request right after. Times are `loop.time()`
        seconds.

        The future always gets a result, by `deadline` at the latest; it never gets an exception.
        With a `stream` the body goes there, and each block that comes moves the deadline on.
        """
        self._reset()
        self._stream = stream
        if stream is not None:
            stream.attach(self._pause_reading)
        self._sent_at = now
        self._deadline = deadline
        # A timer left by an earlier exchange fires early and sets itself anew: with the usual equal
        # time-outs that is one timer per connection and time-out, not one per request.
        timer = self._timer
        if timer is None:
            self._timer = self._loop.call_at(deadline, self._on_timer)
        elif timer.when() > deadline:
            timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_timer)
        answer: asyncio.Future[Attempt] = self._loop.create_future()
        self._answer = answer
        return answer

    def write(self, message: bytes) -> None:
        """Sends a small request whole."""
        assert self._transport is not None
        self._transport.write(message)

    async def write_blocks(self, head: bytes, body: bytes) -> None:
        """Sends a large request no faster than the engine takes it; returns early once answered."""
        assert self._transport is not None
        self._sending = True
        self._transport.write(head)
        view = memoryview(body)
        for start in range(0, len(view), REQUEST_BLOCK_BYTES):
            self._transport.write(view[start : start + REQUEST_BLOCK_BYTES])
            if self._write_paused and self._answer is not None:
                self._resume = self._loop.create_future()
                await self._resume
            if self._answer is None:
                return
        self._sending = False

    def abort(self) -> None:
        """Closes the socket at once. An exchange in progress, if any, gets no answer."""
        self._spent = True
        self._answer = self._stream = None
        self.hold.end()
        if self._transport is not None:
            self._transport.abort()

    def fail(self, why: NoReply) -> None:
        """Ends an exchange in progress with `why` and closes the socket."""
        self._settle(why)
        self.abort()

    # ---- called by the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports are asyncio.Transport in all but inheritance.
        self._transport = cast(asyncio.Transport, transport)
        if self._spent:  # given up while it was being opened
            self._transport.abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        with contextlib.suppress(OSError):  # it may be gone: connection_lost tells of that
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_KEEPALIVE_S)

    def data_received(self, data: bytes) -> None:
        if len(data) > (most := REPLY_HEADER_BYTES_MAX):  # no long head hides in a long block
            for start in range(0, len(data), most):
                self.data_received(data[start : start + most])
            return
        if self._answer is None:
            self.abort()  # nobody asked: whatever comes next could not be trusted either
            return
        self._received += len(data)
        if self._stream is not None:
            self._deadline = self._loop.time() + self._stream.silence_s
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as exc:
            self._spent = True
            if self._result is None:
                self._result = no_http(data, exc)
        if self._result is not None:
            self._settle(self._result)
        elif self._received - self._body_seen_at >= REPLY_HEADER_BYTES_MAX:
            # Heads, trailers and chunk extensions without end: the parser would keep them all.
            self.fail(_OVERSIZE_HEAD)

    def eof_received(self) -> None:
        self._end(None)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._spent = True
        self._end(exc)
        if self._timer is not None:
            self._timer.cancel()
        if not self.closed.done():
            self.closed.set_result(None)
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake_writer()

    # ---- called by the parser ----

    def on_message_begin(self) -> None:
        if self._result is not None:
            self._spent = True  # a second answer behind the first

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name not in _HEADERS_READ or self._status:  # with a status it is a trailer
            return
        if name == b"content-length":
            self._framed = True
            if len(value) > 18 or int(value) > REPLY_BYTES_MAX:
                self._refuse(_OVERSIZE)
        elif name == b"transfer-encoding":
            self._framed = True
        elif name == b"content-type":
            self._content_type = value
        elif name == b"content-encoding":
            self._unpacker = Unpacker(value)
        elif name == b"retry-after":
            self._retry_after = value
        elif name == b"retry-after-ms":
            self._retry_after_ms = value

    def on_headers_complete(self) -> None:
        self._status = status = self._parser.get_status_code()
        if self._stream is not None and status >= 200 and self._result is None:
            self._stream.opened(status, self._content_type, self._wait_s())

    def on_body(self, data: bytes) -> None:
        self._body_seen_at = self._received
        if self._unpacker is not None:
            unpacked = self._unpacker.feed(data)
            if not unpacked:
                if unpacked is None:
                    self._refuse(_OVERSIZE)
                return
            data = unpacked
        if self._stream is not None:
            self._stream.fed(data)
            return
        body = self._body
        if not body:
            self._body = data  # most replies come in one piece and are never copied
        elif isinstance(body, bytearray):
            body += data
        else:
            self._body = bytearray(body) + data
        if len(self._body) > REPLY_UNCOUNTED_BYTES:
            if len(self._body) > REPLY_BYTES_MAX:
                self._refuse(_OVERSIZE)
            self.hold.reach(len(self._body))

    def on_message_complete(self) -> None:
        if self._result is not None:
            return
        status = self._status
        if status < 200:
            self._on_interim(status)
            return
        if not self._parser.should_keep_alive():
            self._spent = True
        self._result = self._reply()

    # ---- inside ----

    def _on_interim(self, status: int) -> None:
        if status < 100:
            self._refuse(NoReply("broken", f"the engine spoke no HTTP: status {status}"))
        self._status = 0
        self._framed = False
        self._content_type = b""
        self._unpacker = None
        self._retry_after = self._retry_after_ms = None

    def _refuse(self, why: NoReply) -> None:
        """Decides, from inside the parser, that the rest of the answer does not matter."""
        self._spent = True
        if self._result is None:
            self._result = why

    def _wait_s(self) -> float | None:
        if self._retry_after is None and self._retry_after_ms is None:
            return None
        return retry_after_s(self._retry_after, self._retry_after_ms, self._utc_now)

    def _reply(self) -> Reply:
        return Reply(self._status, bytes(self._body), self._wait_s())

    def _settle(self, attempt: Attempt) -> None:
        answer, self._answer = self._answer, None
        if self._sending:
            self._spent = True  # answered before the request was complete
        if answer is not None and not answer.done():
            answer.set_result(attempt)
        if self._stream is not None:
            self._end_stream(self._stream, attempt)
        self._served += 1
        self._body = b""
        if self.hold.bytes:
            self.hold.end()
        self._result = None
        if self._resume is not None:
            self._wake_writer()

    def _end_stream(self, stream: HttpReplyStream, attempt: Attempt) -> None:
        self._stream = None
        stream.ended(attempt if isinstance(attempt, NoReply) else None)
        if stream.is_paused:  # the next exchange here is another reader's
            self._pause_reading(False)

    def _pause_reading(self, wanted: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if wanted:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _wake_writer(self) -> None:
        if self._resume is not None and not self._resume.done():
            self._resume.set_result(None)

    def _on_timer(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if self._stream is not None and self._stream.is_paused:
            self._deadline = self._loop.time() + self._stream.silence_s
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._on_timer)
            return
        seen = f"{self._received} bytes" if self._received else "nothing"
        what = "complete answer in the attempt's time" if self._stream is None else "more in time"
        self.fail(NoReply("timeout", f"no {what} ({seen} came)"))

    def _end(self, exc: Exception | None) -> None:
        """The engine will send no more: what does that make of the exchange in progress?"""
        if self._answer is None:
            return
        if exc is None and self._status and not self._framed:  # HTTP/1.0 ends bodies so
            self._settle(self._reply())
        elif not self._received and self._lost_the_race():
            self._settle(STALE)
        else:
            seen = f"after {self._received} bytes of" if self._received else "before"
            cause = f": {exc}" if exc is not None else ""
            self._settle(NoReply("broken", f"the connection ended {seen} the answer{cause}"))

    def _lost_the_race(self) -> bool:
        # Later than this the engine had the request and died over it, which is no race.
        return self._served > 0 and self._loop.time() - self._sent_at < KEEPALIVE_RACE_S
