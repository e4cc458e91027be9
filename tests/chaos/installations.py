"""The two nodes that faults are planted in, each a set of processes over one place of data.

`sqlite`: one `lowtide serve` over SQLite and a folder. `fleet`: an API process and two workers over
PostgreSQL and a bucket (moto's server). Both have two engines. A node lives through many rounds.
"""

import asyncio
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
from calls import CallLog
from children import Child, Children, free_port
from resolver import NAMES_VARIABLE

from lowtide.core.accounts.money import model_prices
from testkit.postgres import PostgresServer, running_postgres

WINDOW: Final = 8
COMMIT_INTERVAL_S: Final = 0.2
LEASE_TTL_S: Final = 2.0
ANSWER_S: Final = 0.03
PRICES: Final = model_prices(
    Decimal("0.123456"), Decimal("0.012346"), Decimal("0.654322"), Decimal("0.5")
)
_MODEL: Final = (
    '[[model]]\nid = "m"\ninput_price = 0.123456\ncached_input_price = 0.012346\n'
    "output_price = 0.654322\n"
)
HERE: Final = Path(__file__).parent
DEAD_ADDRESS: Final = "127.0.0.2"
"""Of this machine, and nobody listens there."""
NOTICED_S: Final = 0.1
"""After which PostgreSQL has noticed that one of its processes was killed."""
POSTGRES_S: Final = 30.0
"""How long a killed PostgreSQL may take to answer again."""


@dataclass(slots=True)
class Env:
    """What runs. `children` are those that may be killed, by name; `roles` say what each is."""

    name: str
    folder: Path
    http: httpx.AsyncClient
    calls: CallLog
    children: dict[str, Child] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    database: "Path | PostgresServer | None" = None
    batches: int = 0
    """That clients have created so far."""
    engine_ports: dict[str, int] = field(default_factory=dict)

    def add(self, role: str, child: Child) -> Child:
        self.children[child.name] = child
        self.roles[child.name] = role
        return child

    def of_role(self, role: str) -> list[Child]:
        return [child for name, child in self.children.items() if self.roles[name] == role]

    async def query(self, statement: str) -> list[tuple[str, ...]]:
        """Rows of a statement that both databases understand, as text."""
        return await asyncio.to_thread(self._query, statement)

    def _query(self, statement: str) -> list[tuple[str, ...]]:
        if isinstance(self.database, PostgresServer):
            printed = self.database.sql(statement, database="node")
            return [tuple(line.split("|")) for line in printed.splitlines()]
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return [tuple(map(str, row)) for row in connection.execute(statement)]


def write_config(
    folder: Path,
    name: str,
    engines: Mapping[str, str],
    *,
    port: int = 0,
    server: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    window: int = WINDOW,
    auth: str = "open",
) -> Path:
    """`engines` are URLs by name."""
    keys = {"host": host, "data_dir": str(folder / name)} | dict(server or {})
    written = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    replicas = "".join(
        f'[[replica]]\nurl = "{url}"\nmodels = ["m"]\nwindow = {window}\n'
        for url in engines.values()
    )
    config = folder / f"{name}.toml"
    config.write_text(
        f"[server]\nport = {port}\n{written}[auth]\nmode = '{auth}'\n"
        f"[dispatch]\ncommit_interval_s = {COMMIT_INTERVAL_S}\nlease_ttl_s = {LEASE_TTL_S}\n"
        f"{replicas}{_MODEL}"
    )
    return config


def add_engine(
    children: Children,
    name: str,
    host: str,
    port: int,
    delay_s: float = ANSWER_S,
    under: Sequence[str] = (),
) -> tuple[str, Path, Child]:
    """Its URL, where its calls will be written, and its process."""
    calls = children.folder / f"{name}.calls"
    flags = ("--host", host, "--port", str(port), "--calls", calls, "--delay", str(delay_s))
    flags += ("--condition", condition_of(children.folder, name))
    child = children.add(name, HERE / "engine.py", *flags, under=under)
    return f"http://{host}:{port}/v1", calls, child


def condition_of(folder: Path, engine: str) -> Path:
    """Where the engine looks for what is wrong with it at present."""
    return folder / f"{engine}.condition"


def add_engines(children: Children) -> tuple[list[Child], dict[str, str], CallLog]:
    """Two engines: the processes, their URLs, and what they will have been asked."""
    engines, urls, files = [], {}, {}
    for name in ("engine-1", "engine-2"):
        urls[name], files[name], engine = add_engine(children, name, "127.0.0.1", free_port())
        engines.append(engine)
    return engines, urls, CallLog(files)


def client_of(address: str, key: str = "") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(base_url=address, timeout=20, trust_env=False, headers=headers)


@asynccontextmanager
async def sqlite_house(
    folder: Path, data: Path | None = None, blob_url: str = "file", *, by_name: bool = False
) -> AsyncIterator[Env]:
    """`data` is where the data directory lies, if not in `folder`. `by_name`: each engine has a
    name with two addresses, of which the first is dead.
    """
    async with AsyncExitStack() as stack:
        children = await stack.enter_async_context(Children(folder))
        engines, urls, calls = add_engines(children)
        ports = {name: urlsplit(url).port or 0 for name, url in urls.items()}
        if by_name:
            urls = {name: f"http://{name}.test:{port}/v1" for name, port in ports.items()}
        port = free_port()
        place = (data or folder) / "data"
        server = {"data_dir": str(place), "blob_url": blob_url}
        config = write_config(folder, "serve", urls, port=port, server=server)
        http = await stack.enter_async_context(client_of(f"http://127.0.0.1:{port}"))
        database = place / "lowtide.db"
        env = Env("sqlite", folder, http, calls, database=database, engine_ports=ports)
        for engine in engines:
            await env.add("engine", engine).start()
        if by_name:
            addresses = [DEAD_ADDRESS, "127.0.0.1"]
            names = json.dumps({f"{name}.test": addresses for name in ports})
            os.environ[NAMES_VARIABLE] = names
        lowtide = (HERE / "resolver.py",) if by_name else ("-m", "lowtide")
        serve = (*lowtide, "serve", "--config", config, "--json")
        await env.add("serve", children.add("serve", *serve)).start()
        yield env


@asynccontextmanager
async def fleet_house(folder: Path) -> AsyncIterator[Env]:
    async with AsyncExitStack() as stack:
        postgres = await asyncio.to_thread(stack.enter_context, running_postgres())
        postgres.sql("CREATE DATABASE node")
        children = await stack.enter_async_context(Children(folder))
        engines, urls, calls = add_engines(children)
        bucket_port, port = free_port(), free_port()
        bucket = children.add("bucket", HERE / "bucket.py", "--port", str(bucket_port))
        await bucket.start()
        os.environ.update(bucket_environment(f"http://127.0.0.1:{bucket_port}"))
        server = {"database_url": postgres.url("node"), "blob_url": "s3://lowtide/node"}
        http = await stack.enter_async_context(client_of(f"http://127.0.0.1:{port}"))
        env = Env("fleet", folder, http, calls, database=postgres)
        for engine in engines:
            await env.add("engine", engine).start()
        config = write_config(folder, "api", urls, port=port, server=server)
        serve = ("-m", "lowtide", "serve", "--role", "api", "--config", config, "--json")
        await env.add("api", children.add("api", *serve)).start()
        for name in ("worker-1", "worker-2"):
            config = write_config(folder, name, urls, server=server)
            work = ("-m", "lowtide", "worker", "--config", config, "--json")
            await env.add("worker", children.add(name, *work)).start()
        yield env


def bucket_environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


async def kill_postgres(postgres: PostgresServer, *, whole: bool) -> tuple[float, float]:
    """SIGKILL to the server's first process, or to one that serves a connection of ours.

    Either takes all connections down; waits until it accepts them again. When it was killed, and
    when it was back.
    """
    pid = int((postgres.folder / "data" / "postmaster.pid").read_text().split()[0])
    if not whole:
        serving = "SELECT max(pid) FROM pg_stat_activity WHERE application_name = 'lowtide'"
        pid = int((await _patient_sql(postgres, serving)) or pid)
        whole = pid == int((postgres.folder / "data" / "postmaster.pid").read_text().split()[0])
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    if whole:
        await _start_again(postgres)
    else:
        await asyncio.sleep(NOTICED_S)
    await _patient_sql(postgres, "SELECT 1")
    return at, time.monotonic()


async def _patient_sql(postgres: PostgresServer, statement: str) -> str:
    """What it prints, once the server has recovered from what was done to it before."""
    until = time.monotonic() + POSTGRES_S
    while True:
        try:
            return (await asyncio.to_thread(postgres.sql, statement)).strip()
        except RuntimeError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)


async def _start_again(postgres: PostgresServer) -> None:
    """Its children, and the memory that they share, take a moment to go."""
    until = time.monotonic() + POSTGRES_S
    while True:
        try:
            return await asyncio.to_thread(postgres.start)
        except RuntimeError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
