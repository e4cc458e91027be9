"""Processes that share one PostgreSQL, one folder of blobs, and the same list of engines.

With what an operator has around them: a balancer that asks `/ready`, and a way to run a version of
Lowtide that is one revision ahead.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from command_line import Command

from lowtide.core.replicas.replica_assignment import Fleet
from lowtide.store.sql_store import SqlStore
from testkit.echo_engine import EchoEngine
from testkit.next_version import NEXT_HEAD, write_next_migrations
from testkit.patience import PATIENCE_S

COMMIT_INTERVAL_S = 0.2
FALL = 3
"""Checks that must fail before a balancer sends nobody there any more."""
WINDOW = 4
_HOOK = f"""import pathlib
import lowtide.store.schema.tables
lowtide.store.schema.tables.HEAD = "{NEXT_HEAD}"  # before anybody has read it
import lowtide.store.schema.migrate
lowtide.store.schema.migrate.MIGRATIONS = pathlib.Path(__file__).parent / "migrations"
"""


class Machines:
    """Starts processes, each with a data directory of its own, and the same settings otherwise."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        engines: Sequence[EchoEngine],
        *,
        models: str = "",
        lease_ttl_s: float,
        shutdown_delay_s: float = 0.0,
    ) -> None:
        """`models` has a letter for each engine, what it serves; `m` where it has none."""
        self._models = models.ljust(len(engines), "m")
        self.folder = folder
        self.database_url = database_url
        self._engines = engines
        self._lease_ttl_s = lease_ttl_s
        self._delay_s = shutdown_delay_s
        self._newer: Path | None = None

    async def worker(self, name: str, *, newer: bool = False) -> Command:
        """A worker that is up."""
        command = await Command.start(
            "worker", "--config", self._config(name), "--json", cwd=self.folder, **self._env(newer)
        )
        await command.printed_json()
        return command

    async def api(self, name: str, *, newer: bool = False) -> tuple[Command, str]:
        """A process with the HTTP API alone, that is up, and its address."""
        command = await Command.start(
            "serve", "--role", "api", "--config", self._config(name), "--json",
            cwd=self.folder, **self._env(newer),
        )  # fmt: skip
        return command, str((await command.printed_json())["address"])

    def _config(self, name: str) -> Path:
        config = self.folder / f"{name}.toml"
        replicas = "".join(
            f"[[replica]]\nurl = {json.dumps(engine.url)}\nmodels = ['{model}']\n"
            f"window = {WINDOW}\n"
            for engine, model in zip(self._engines, self._models, strict=True)
        )
        config.write_text(
            f"[server]\nport = 0\ndata_dir = {json.dumps(str(self.folder / name))}\n"
            f"database_url = {json.dumps(self.database_url)}\n"
            f"blob_url = {json.dumps((self.folder / 'shared blobs').as_uri())}\n"
            "upload_secret = '0f1e2d3c4b5a69788796a5b4c3d2e1f0'\n"
            f"shutdown_delay_s = {self._delay_s}\n"
            f"[dispatch]\ncommit_interval_s = {COMMIT_INTERVAL_S}\n"
            f"lease_ttl_s = {self._lease_ttl_s}\n{replicas}"
        )
        return config

    def _env(self, newer: bool) -> dict[str, str]:
        """Of the coming version: this code, told on its start that it is one revision ahead."""
        if not newer:
            return {}
        if self._newer is None:
            self._newer = self.folder / "newer"
            write_next_migrations(self._newer)
            (self._newer / "sitecustomize.py").write_text(_HOOK)
        return {"PYTHONPATH": str(self._newer)}


class Owners:
    """Who owns what, as the store has it."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    @classmethod
    @asynccontextmanager
    async def watched(cls, database_url: str) -> AsyncIterator[Self]:
        store = SqlStore(database_url)
        await store.open()
        try:
            yield cls(store)
        finally:
            await store.aclose()

    async def until(self, fact: Callable[[dict[str, list[str]]], bool]) -> dict[str, list[str]]:
        """Look until `fact` holds of worker id -> replicas; every member has an entry."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                shares = shares_of(await self._store.ownership.fleet())
                if fact(shares):
                    return shares
                await asyncio.sleep(0.02)


def shares_of(fleet: Fleet) -> dict[str, list[str]]:
    shares: dict[str, list[str]] = {member.worker_id: [] for member in fleet.members}
    for name, owner in fleet.owners.items():
        if owner is not None:
            shares[owner.worker_id].append(name)
    return shares


async def stop(command: Command) -> None:
    """SIGTERM, and exit code 0."""
    command.send(signal.SIGTERM)
    code, _, reported = await command.ended()
    assert code == 0, reported


class Balancer:
    """What stands before several APIs: new connections go in turn to those that are ready.

    As a Kubernetes service or an nginx `stream` does it, by connection and not by request, and with
    checks that must fail three times in a row, for a server is slow now and then. A connection to
    one that has turned unready stays; and when none is ready, all are tried, as Envoy does it.
    """

    def __init__(self) -> None:
        self._ready: dict[str, bool] = {}
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [*self._checks.values(), *self._pipes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def add(self, backend: str) -> None:
        self._ready[backend] = False
        self._checks[backend] = asyncio.create_task(self._check(backend))

    async def until(self, backend: str, *, ready: bool) -> None:
        """Wait until a check has found it so."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: self._ready[backend] == ready)

    async def _check(self, backend: str) -> None:
        async with httpx.AsyncClient(base_url=backend, timeout=PATIENCE_S) as http:
            failed = 0
            while True:
                try:
                    found = (await http.get("/ready")).status_code == 200
                except httpx.TransportError:
                    found = False
                failed = 0 if found else failed + 1
                async with self._changed:
                    self._ready[backend] = found or (self._ready[backend] and failed < FALL)
                    self._changed.notify_all()
                await asyncio.sleep(0.1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        self._pipes.add(task)
        task.add_done_callback(self._pipes.discard)
        try:
            ready = [backend for backend, is_ready in self._ready.items() if is_ready]
            ready = ready or list(self._ready)
            self._turn += 1
            place = urlsplit(ready[self._turn % len(ready)])
            far_reader, far_writer = await asyncio.open_connection(place.hostname, place.port)
            try:
                await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))
            finally:
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass  # the end: the streams' own callback takes a cancellation for an error
        finally:
            writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()
