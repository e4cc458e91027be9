"""A Starlette app served from a thread with an event loop of its own, on 127.0.0.1.

For engines that synchronous clients and child processes call while the caller waits. Invariant: it
listens before the context begins, and is gone when the context is left.
"""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route


class AppThread:
    """Use `running_app`; `address` has no path."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._config = uvicorn.Config(
            Starlette(routes=list(routes)), port=0, http="httptools", ws="none", log_config=None,
            lifespan="off", timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(self._config)
        self.ready = threading.Event()
        self.address = ""

    def run(self) -> None:
        """Serves until `stop`; the body of the thread."""
        asyncio.run(self._serve())

    def stop(self) -> None:
        """Ends it early, as an engine that dies does."""
        self._server.should_exit = True

    async def _serve(self) -> None:
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup()
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.ready.set()
        await self._server.main_loop()
        await self._server.shutdown()


@contextmanager
def running_app(routes: Sequence[Route], name: str, patience_s: float) -> Iterator[AppThread]:
    """Serves the routes while the context lasts. `patience_s`: how long the start, and the end,
    may take. Raises AssertionError.
    """
    app = AppThread(routes)
    thread = threading.Thread(target=app.run, name=name, daemon=True)
    thread.start()
    assert app.ready.wait(patience_s), f"{name} did not start"
    try:
        yield app
    finally:
        app.stop()
        thread.join(patience_s)
