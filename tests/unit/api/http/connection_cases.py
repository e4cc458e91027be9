"""Connections without sockets: bytes are fed by hand, and the clock is moved by hand."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from lowtide.api.http.bounded_protocol import BoundedHttpProtocol
from lowtide.api.http.connections import Connections, UnauthenticatedBounds
from lowtide.config.exposure import networks_of

ROOMY = UnauthenticatedBounds(per_address=1000, in_all=1000, burst=2000)


class Transport:
    """What a protocol asks of its socket."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.written = bytearray()
        self.is_reading = True
        self.is_closed = False
        self.protocol: BoundedHttpProtocol | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": (self.peer, 1), "sockname": ("127.0.0.1", 8000)}.get(name, default)

    def write(self, data: bytes) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)
            self.protocol = None  # as asyncio's, so that nothing waits for the collector

    abort = close


class ManualLoop:
    """The running loop with a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time(self) -> float:
        return self.now_s

    def create_task(self, work: Any) -> "asyncio.Task[Any]":
        return asyncio.get_running_loop().create_task(work)

    def call_later(self, delay_s: float, call: Any) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, call)


class ConnectionEnv:
    """One process: an application, and connections to it."""

    def __init__(
        self,
        app: ASGIApp,
        bounds: UnauthenticatedBounds = ROOMY,
        proxies: tuple[str, ...] = (),
    ) -> None:
        self.loop = ManualLoop()
        self.connections = Connections(bounds, networks_of(proxies))
        self.connections._sweep_later = lambda: None  # type: ignore[method-assign]  # by hand
        self._config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None)
        self._config.load()
        self._state = uvicorn.Server(self._config).server_state

    def connect(self, peer: str = "10.0.0.1") -> BoundedHttpProtocol:
        protocol = BoundedHttpProtocol(
            self.connections,
            config=self._config,
            server_state=self._state,
            app_state={},
            _loop=self.loop,
        )
        transport = Transport(peer)
        transport.protocol = protocol
        protocol.connection_made(transport)  # type: ignore[arg-type]
        return protocol

    async def pass_time(self, seconds: float, step_s: float = 1.0) -> None:
        """Sweep by sweep."""
        end_s = self.loop.now_s + seconds
        while self.loop.now_s < end_s:
            self.loop.now_s = min(end_s, self.loop.now_s + step_s)
            self.connections.sweep(self.loop.now_s)
            await settled()


def wire(protocol: BoundedHttpProtocol) -> Transport:
    transport: Any = protocol.transport
    return transport  # type: ignore[no-any-return]


def reported(protocol: BoundedHttpProtocol) -> int | None:
    """The status of the last answer on the wire; None: not a byte."""
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", bytes(wire(protocol).written))
    return int(statuses[-1]) if statuses else None


async def settled() -> None:
    """What was made ready has run."""
    for _ in range(6):
        await asyncio.sleep(0)


def answering(
    status: int = 200,
    *,
    accept: bool = False,
    read: bool = False,
    before: Callable[[], Awaitable[None]] | None = None,
) -> ASGIApp:
    """An application that accepts its caller, reads the body, and answers: as asked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if before is not None:
            await before()
        if accept:
            scope["state"]["connection"].accept("A") if "connection" in scope["state"] else None
        if read:
            while (message := await receive())["type"] == "http.request":
                if not message["more_body"]:
                    break
            else:
                return
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app
