"""HTTP on one connection: uvicorn's protocol with a bound on everything a caller may send.

uvicorn makes one for each connection (`server.uvicorn_config`). Guards, and all of it while the
bytes come: a head, the trailers and what frames a body have a number of bytes and of seconds; a
body comes at no less than a least rate and never stands still for long, but only time counts in
which the application would have read; of a caller who was not accepted yet, no more is read than
its head and what came with it. Refusals are answered in the envelope where an answer can still be
given, and then the connection is closed.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lowtide import limits
from lowtide.api.http.connections import Connections
from lowtide.api.http.errors import envelope
from lowtide.core.errors import ErrorCode
from lowtide.telemetry import metrics

_IDLE: Final = 0
_HEAD: Final = 1
_BODY: Final = 2

_MALFORMED: Final = (400, "invalid_request", "This is not an HTTP/1.1 request.")
_BUSY: Final = (503, "server_busy", "Too many connections are open here; try again in a moment.")


class _Refused(Exception):
    """Raised inside the parser's callbacks: it stops there."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. `opened_at_s` and what is measured are in seconds of the loop."""

    # Apart from uvicorn's attributes: CPython finds thirty of an object quickly, and no more.
    __slots__ = (
        "_dropped_bytes",
        "_has_moved",
        "_head_since_s",
        "_is_proxy",
        "_is_unauthenticated",
        "_moved_at_s",
        "_others",
        "_owner",
        "_phase",
        "_refusal",
        "_refused_at_s",
        "_span_bytes",
        "_span_since_s",
        "_unmoved_bytes",
        "held_bytes",
        "opened_at_s",
    )

    def __init__(self, connections: Connections, **uvicorn_arguments: Any) -> None:
        super().__init__(**uvicorn_arguments)
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.opened_at_s = 0.0
        self.held_bytes = 0
        self._others = connections
        self._is_unauthenticated = True
        self._is_proxy = False
        self._owner: str | None = None
        self._phase = _IDLE
        self._has_moved = False  # the head ended, or a byte of the body came, in the last piece
        self._unmoved_bytes = 0  # of a head, of trailers or of framing, since then
        self._dropped_bytes = 0  # of a body that was refused
        self._head_since_s: float | None = None
        self._span_since_s: float | None = None
        self._span_bytes = 0
        self._moved_at_s = 0.0
        self._refusal: tuple[int, ErrorCode | None, str] | None = None
        self._refused_at_s: float | None = None

    # ---- what the loop calls ----

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        self.opened_at_s = self._head_since_s = self.loop.time()
        self._is_proxy = self._others.is_trusted(peer)
        is_full = len(self.connections) > self._others.open_max
        if is_full and not self._others.end_one(self.opened_at_s):
            self._turn_away(transport)
        elif self._is_proxy:
            self._others.watch(self)
        elif not self._others.add(self, peer, self.opened_at_s):
            self._turn_away(transport)

    def _turn_away(self, transport: asyncio.Transport) -> None:
        """Refuses a connection for which there is no room, and closes it."""
        self._refused_at_s = self.opened_at_s
        metrics.CONNECTIONS_ENDED.labels("room").inc()
        transport.write(_written(*_BUSY))
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.forget(self)
        if self._owner is not None:
            self._others.leave(self._owner)
            self._owner = None
        if self.scope is not None:
            self.scope["state"].pop("connection", None)  # else they would hold each other
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if len(data) > limits.REQUEST_SLICE_BYTES or self._refused_at_s is not None:
            self._feed_in_slices(memoryview(data))
        elif self._phase == _IDLE:
            self._phase = _HEAD
            self._has_moved = False
            HttpToolsProtocol.data_received(self, data)
            if self._phase == _IDLE and not self._is_unauthenticated:
                return  # one whole request of somebody known: nothing to count
            self._inspect(len(data))
        else:
            self._feed(data, len(data))
        if self._phase != _IDLE or self._is_unauthenticated:
            self._take_note(len(data))

    def _feed_in_slices(self, data: memoryview) -> None:
        done = 0
        while done < len(data) and not self.transport.is_closing():
            if self._refused_at_s is not None:
                self._dropped_bytes += len(data) - done
                if self._dropped_bytes > limits.CONNECTION_LINGER_BYTES:
                    self.transport.abort()
                return
            is_body = self._phase == _BODY
            step = limits.BODY_SLICE_BYTES if is_body else limits.REQUEST_SLICE_BYTES
            piece = data[done : done + step]
            done += len(piece)
            self._feed(piece, len(piece))

    def _feed(self, piece: bytes | memoryview, size: int) -> None:
        if self._phase == _IDLE:
            self._phase = _HEAD
        self._has_moved = False
        HttpToolsProtocol.data_received(self, piece)  # type: ignore[arg-type]
        self._inspect(size)

    def _inspect(self, size: int) -> None:
        """Closes the connection where the last piece was too much."""
        if self._has_moved:
            self._unmoved_bytes = 0
        else:
            self._unmoved_bytes += size
            if self._phase == _BODY:
                self.headers.clear()  # trailers: nobody asks for them
        if self._refused_at_s is not None:
            return
        if self._unmoved_bytes > limits.REQUEST_HEAD_BYTES_MAX or (
            self._phase == _HEAD and len(self.headers) > limits.REQUEST_HEADERS_MAX
        ):
            self._refuse(self._too_much())
        elif self._dropped_bytes > limits.REFUSED_BODY_BYTES_MAX:
            self.transport.close()

    def _take_note(self, size: int) -> None:
        """Counts what the connection holds and has it checked: its request has not come whole, or
        its caller is unauthenticated.
        """
        is_answering = self.is_answering
        if self._is_unauthenticated and not self._is_proxy:
            if is_answering or self._phase == _HEAD:
                fields = len(self.headers) if self._phase == _HEAD else 0
                cost = fields * limits.REQUEST_HEADER_COST_BYTES
                self._others.hold(self, self.held_bytes + size + cost)
            if is_answering and self._phase == _BODY and not self.transport.is_closing():
                self.flow.pause_reading()  # `receive` reads on
        if self._phase == _IDLE:
            return
        now_s = self.loop.time()
        if self._phase == _HEAD:
            if self._head_since_s is None:
                self._head_since_s = now_s
        else:
            if self._span_since_s is None:
                self._span_since_s, self._span_bytes, self._moved_at_s = now_s, 0, now_s
            if self._has_moved:
                self._moved_at_s = now_s
        self._others.watch(self)

    # ---- what the parser calls: each request, hence no `super()` ----

    def on_message_begin(self) -> None:
        HttpToolsProtocol.on_message_begin(self)
        self._phase = _HEAD
        self._dropped_bytes = 0

    def on_headers_complete(self) -> None:
        if len(self.headers) > limits.REQUEST_HEADERS_MAX:
            self._refusal = self._too_much()
            raise _Refused
        if len(self.pipeline) >= limits.PIPELINE_MAX:
            self._refusal = _BUSY
            raise _Refused
        if self._is_proxy:
            self._name_client()
        if self._is_unauthenticated:
            self.scope["state"]["connection"] = self
        HttpToolsProtocol.on_headers_complete(self)
        self.headers = []  # where trailers go; the request's own are in its scope
        self._has_moved = True
        self._phase = _BODY
        self._head_since_s = self._span_since_s = None

    def on_body(self, body: bytes) -> None:
        self._has_moved = True
        self._span_bytes += len(body)
        if self.cycle.response_complete:
            self._dropped_bytes += len(body)
        HttpToolsProtocol.on_body(self, body)

    def on_message_complete(self) -> None:
        self._has_moved = True
        self._phase = _IDLE
        HttpToolsProtocol.on_message_complete(self)

    def on_response_complete(self) -> None:
        if self._is_unauthenticated:
            if self._is_proxy:
                self._others.remove(self)
            else:
                self._others.hold(self, 0)
        HttpToolsProtocol.on_response_complete(self)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Refuses after the parser stopped: at what is no HTTP, or where a callback refused."""
        self._refuse(self._refusal or _MALFORMED)

    # ---- what the application says ----

    def accept(self, owner: str) -> bool:
        """Counts the connection as the organization's, because a request of it was authenticated.

        Returns False when the organization has as many connections as it may have.
        """
        if not self._is_unauthenticated:
            return True
        if self._is_proxy:  # the next one may be anybody's
            self._others.remove(self)
            return True
        if not self._others.admit(self, owner):
            return False
        self._is_unauthenticated = False
        self._owner = owner
        return True

    # ---- what `Connections` asks ----

    @property
    def is_answering(self) -> bool:
        return (
            self._refused_at_s is None
            and self.cycle is not None
            and not self.cycle.response_complete
        )

    def check(self, now_s: float) -> bool:
        if self._refused_at_s is not None:
            if now_s - self._refused_at_s >= limits.CONNECTION_LINGER_S:
                self.transport.abort()
            return True
        if self._head_since_s is not None and self._phase != _BODY:
            if self._is_proxy and self._phase == _IDLE:
                return True  # a proxy may keep connections ready
            if now_s - self._head_since_s >= limits.REQUEST_HEAD_S:
                self._end_slow(f"The request's head took {limits.REQUEST_HEAD_S:.0f} s and more.")
            return True
        if self._phase == _BODY:
            self._check_body(now_s)
            return True
        return False

    def abort(self) -> None:
        metrics.CONNECTIONS_ENDED.labels("room").inc()
        self.transport.abort()

    def hold_back(self) -> None:
        self.flow.pause_reading()

    def go_on(self) -> None:
        if not (self.is_answering and self._phase == _BODY):  # then `receive` reads on
            self.flow.resume_reading()

    # ---- the rest ----

    def _check_body(self, now_s: float) -> None:
        is_ours = self.flow.read_paused or (
            self.is_answering and self.cycle.waiting_for_100_continue
        )
        if is_ours or self._span_since_s is None:  # the application takes its time
            self._span_since_s, self._span_bytes, self._moved_at_s = now_s, 0, now_s
        elif now_s - self._moved_at_s > limits.BODY_STALL_S:
            self._end_slow(f"No byte of the body arrived for {limits.BODY_STALL_S:.0f} seconds.")
        elif (span_s := now_s - self._span_since_s) >= limits.BODY_RATE_SPAN_S:
            if self._span_bytes < limits.BODY_RATE_MIN * span_s:
                self._end_slow(
                    f"The body came at less than {limits.BODY_RATE_MIN} bytes a second for"
                    f" {limits.BODY_RATE_SPAN_S:.0f} seconds."
                )
            self._span_since_s, self._span_bytes = now_s, 0

    def _end_slow(self, message: str) -> None:
        if self._phase == _IDLE or (self._phase == _BODY and not self.is_answering):
            metrics.CONNECTIONS_ENDED.labels("slow").inc()
            self.transport.abort()  # it has said nothing, or has its answer already
        else:
            self._refuse((408, "request_timeout", f"{message} The connection is closed."), "slow")

    def _name_client(self) -> None:
        """Counts the request for the address that the proxy names, until
        its caller is authenticated.
        """
        self._is_unauthenticated = True
        peer = self.client[0] if self.client else ""
        named = b",".join(value for name, value in self.headers if name == b"x-forwarded-for")
        client = self._others.client_behind(peer, named.decode("latin-1")) if named else peer
        self.scope["client"] = (client, 0)
        if client != peer and not self._others.add(self, client, self.loop.time()):
            self._refusal = _BUSY
            raise _Refused

    def _too_much(self) -> tuple[int, None, str]:
        if self._phase == _HEAD and not self.headers and len(self.url) > limits.URL_BYTES_MAX:
            return 414, None, f"The address is longer than {limits.URL_BYTES_MAX} bytes."
        return (
            431,
            None,
            f"The headers are larger than {limits.REQUEST_HEADERS_BYTES_MAX} bytes, or more than"
            f" {limits.REQUEST_HEADERS_MAX}.",
        )

    def _refuse(self, refusal: tuple[int, ErrorCode | None, str], reason: str = "bounds") -> None:
        """Answer, if no other answer has begun, and close once the caller has had time to read."""
        status, code, message = refusal
        metrics.CONNECTIONS_ENDED.labels(reason).inc()
        self._refused_at_s = self.loop.time()
        cycle, self._phase = self.cycle, _IDLE
        self.url = b""
        self.headers.clear()  # of a head that was refused, or trailers
        self.pipeline.clear()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()  # half an answer, and nothing may follow it
                return
        self.transport.write(_written(status, code, message))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()  # and drop it: bytes nobody has read would reset the answer
        self._others.watch(self)


def _written(status: int, code: ErrorCode | None, message: str) -> bytes:
    """The envelope as bytes on the wire."""
    answer = envelope(status, message, code)
    fields = [*answer.raw_headers, (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    return STATUS_LINE[status] + lines + b"\r\n" + bytes(answer.body)
