"""Listening: one ASGI application on one socket, from announcement to orderly end.

`serve` uses it in the foreground and `run` in a thread. The socket is bound before anything else is
started, so that a port in use is known before a model is loaded; nothing is accepted on it before
the application is ready.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn

from lowtide.api.server import uvicorn_config
from lowtide.cli.terminal.command_errors import CommandError

if TYPE_CHECKING:
    from starlette.applications import Starlette


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, not yet listening; port 0 takes a free one. Raises CommandError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise CommandError(
            f"--host {host!r} is not an address of this machine: {error.strerror}."
        ) from None
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _cannot_bind(host, port, error) from None
    return bound


def _cannot_bind(host: str, port: int, error: OSError) -> CommandError:
    if error.errno == errno.EADDRINUSE:
        return CommandError(
            f"Port {port} on {host} is in use by another program.",
            "Choose another with --port, or --port 0 for any free one.",
            code="port_in_use",
        )
    if error.errno == errno.EACCES:
        return CommandError(
            f"Port {port} needs special rights.", "Choose one above 1023 with --port."
        )
    return CommandError(f"Cannot listen on {host} port {port}: {error.strerror}.")


def address_of(bound: socket.socket) -> str:
    """`http://host:port` as a client on this machine can use it."""
    return address_at(*bound.getsockname()[:2])


def address_at(host: str, port: int) -> str:
    """The same of a socket that listens there."""
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn with an event for when it is up, and without its signal handlers: Lowtide's own also
    stop the loops and the engine.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@asynccontextmanager
async def listening(
    app: "Starlette", bound: socket.socket, *, delay_s: float = 0.0
) -> AsyncIterator["asyncio.Task[None]"]:
    """Serves `app` on `bound` while the context lasts; it accepts connections once entered.

    Yields the task that serves, which only ends by itself when something is badly wrong. On leaving
    in good order, requests are still accepted for `delay_s`, and their connections closed behind
    them; then open requests may end within `limits.DRAIN_S`.
    """
    host, port = bound.getsockname()[:2]
    config = uvicorn_config(app, host=host, port=port)
    # What uvicorn says about itself is in our own words already, or is a client's broken request.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[bound]), name="http-server")
    up = asyncio.create_task(server.is_up.wait())
    try:
        await asyncio.wait({up, serving}, return_when=asyncio.FIRST_COMPLETED)
        yield serving
        config.encoded_headers.append((b"connection", b"close"))
        await asyncio.wait([serving], timeout=delay_s)
    finally:
        up.cancel()
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving
