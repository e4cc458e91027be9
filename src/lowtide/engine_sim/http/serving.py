"""The simulated engine on a socket, while a context lasts: for tests and for the command.

Nothing of it handles signals. Leaving the context cuts what is still open: an engine that is told
to stop does not wait for long answers.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn

from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.http.server import Simulator, simulator


@dataclass(frozen=True, slots=True)
class ServedSimulator:
    """A simulated engine that can be called; `address` has no /v1."""

    address: str
    simulator: Simulator

    @property
    def url(self) -> str:
        """What a replica or an OpenAI client is given."""
        return f"{self.address}/v1"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    def leave(self) -> None:
        """Ends at once and accepts no more connections, or a client that is cut
        would only ask again.
        """
        self.should_exit = True
        for listener in self.servers:
            listener.close()
        self.cut(None)

    def cut(self, client: object) -> None:
        """Resets the connection of this client, or every connection for None."""
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None and client in (None, getattr(connection, "client", None)):
                transport.abort()


@asynccontextmanager
async def served(
    options: ServerOptions, bound: socket.socket | None = None
) -> AsyncIterator[ServedSimulator]:
    """Serves on a bound socket, or on a free port of 127.0.0.1. OSError when there is none."""
    listener = bound or socket.create_server(("127.0.0.1", 0))
    servers: list[_Server] = []

    def cut(client: object) -> None:
        for server in servers:
            server.cut(client)

    async with simulator(options, cut) as (simulated, application):
        config = uvicorn.Config(
            application, http="httptools", ws="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = _Server(config)
        servers.append(server)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="simulated-http")
        up = asyncio.create_task(server.is_up.wait())
        try:
            await asyncio.wait({up, serving}, return_when=asyncio.FIRST_COMPLETED)
            yield ServedSimulator(_address(listener), simulated)
        finally:
            up.cancel()
            server.leave()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
