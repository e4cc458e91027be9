"""A real server for the tests of the HTTP API: uvicorn on 127.0.0.1, port 0, in its own thread.

SQLite and a folder under the test's temporary directory; no loops and no engine, because the API
needs none. `python api_server.py FOLDER` serves the same in a process of its own, for tests that
measure memory.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import uvicorn
from starlette.routing import Route

from lowtide.api.app import create_app
from lowtide.api.console import pages
from lowtide.api.server import uvicorn_config
from lowtide.blobs.url import open_blobs
from lowtide.cli.server.event_loop import new_event_loop
from lowtide.config import LimitSettings, ServerSettings, Settings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.service.live.live import LiveService
from lowtide.service.services import Services
from lowtide.store.sql_store import SqlStore
from lowtide.wiring.parts import parts_of
from lowtide.wiring.services import build_services, standings_of, upload_secret
from testkit.empty_database import place_empty_database
from testkit.no_worker import NoWorker
from testkit.patience import PATIENCE_S

CATALOGUE = Catalogue(
    [
        ModelEntry(
            id="m",
            input_price=Decimal(1),
            cached_input_price=Decimal("0.5"),
            output_price=Decimal(2),
        )
    ]
)


def routes_of(services: Services) -> list[Route]:
    """Every route of the HTTP API, those of the console among them."""
    app = create_app(services)
    return [*(route for route in app.routes if isinstance(route, Route)), *pages.load_routes()]


class ShiftedClock:
    """The machine's clock, moved by hand."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.shift.total_seconds()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


@dataclass
class Answer:
    """What a plain HTTP client saw."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The envelope, checked: exactly these four keys, string or null."""
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        assert isinstance(error["type"], str)
        assert isinstance(error["code"], str | None)
        assert isinstance(error["param"], str | None)
        return error


@dataclass
class ApiServer:
    """A running server and what stands behind it."""

    folder: Path
    services: Services
    store: SqlStore
    clock: ShiftedClock
    port: int = 0
    _ready: threading.Event = field(default_factory=threading.Event)
    loop: asyncio.AbstractEventLoop = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request by a client without any SDK. An iterator of bytes is sent chunked."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(
                method, path, body, headers or {}, encode_chunked=hasattr(body, "__next__")
            )
            response = connection.getresponse()
            return answer_of(response)
        finally:
            connection.close()

    def blobs_on_disk(self) -> list[Path]:
        """Every file of the object store, half-written ones too."""
        return [path for path in (self.folder / "blobs").rglob("*") if path.is_file()]

    def run(self, work: Any) -> Any:
        """Await something in the server's loop, from the test's thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=PATIENCE_S)


def answer_of(response: HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def form(parts: list[tuple[str, str | None, bytes]], boundary: str = "edge") -> tuple[bytes, str]:
    """A multipart body of `(name, filename, data)` and its Content-Type."""
    body = b""
    for name, filename, data in parts:
        named = f'; filename="{filename}"' if filename is not None else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def build(
    folder: Path, settings: Settings | None = None, catalogue: Catalogue = CATALOGUE
) -> ApiServer:
    """The services over fresh adapters in `folder`. Nothing is open yet."""
    settings = settings or Settings(server=ServerSettings(data_dir=folder))
    database = folder / "lowtide.sqlite"
    if not database.exists():
        place_empty_database(database)
    store = SqlStore.sqlite(database)
    clock, worker = ShiftedClock(), NoWorker("api")
    parts = parts_of(settings, store, open_blobs("file", folder / "blobs"), clock, catalogue)
    live = LiveService(catalogue, [], clock, parts.quotas)
    standings = standings_of(parts, worker)
    services = build_services(parts, worker, live, standings, upload_secret(settings, folder))
    return ApiServer(folder, services, store, clock)


async def serve(http_api: ApiServer, stop: asyncio.Event) -> None:
    """Serve until told to stop."""

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            http_api._ready.set()

    await http_api.store.open()
    # Naming TCP matters: only then asyncio turns Nagle's delay off, which costs 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    http_api.port = listener.getsockname()[1]
    http_api.loop = asyncio.get_running_loop()
    config = uvicorn_config(create_app(http_api.services), host="127.0.0.1", port=http_api.port)
    config.timeout_graceful_shutdown = 1
    server = Announced(config)
    task = asyncio.ensure_future(server._serve([listener]))
    try:
        await asyncio.wait(
            [task, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        server.should_exit = True
        await task
        await http_api.services.completions.aclose()
        await http_api.store.aclose()


@contextmanager
def open_api_server(folder: Path, settings: Settings | None = None) -> Iterator[ApiServer]:
    """A server in a thread of its own, so that synchronous clients can be used against it."""
    http_api = build(folder, settings)
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(http_api, stop)), daemon=True)
    thread.start()
    assert http_api._ready.wait(PATIENCE_S), "the server did not start"
    try:
        yield http_api
    finally:
        http_api.loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the server did not stop"


def main(folder: Path) -> None:
    http_api = build(
        folder, Settings(server=ServerSettings(data_dir=folder), limits=LimitSettings())
    )

    async def announced() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, stop.set)  # the parent closes it, or dies
        serving = asyncio.ensure_future(serve(http_api, stop))
        await asyncio.to_thread(http_api._ready.wait, 30)
        print(f"{http_api.port} {os.getpid()}", flush=True)
        await serving

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(announced())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
