"""PostgreSQL, a bucket, engines, API processes and workers, and the file that names the engines.

Used by __main__.py. Each process is a child on 127.0.0.1 with a free port, and ends with its
context; each may be killed and started again on the way.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bench.backend import MODEL
from bench.processes import STOP_TIMEOUT_S, first_line
from testkit.postgres import PostgresServer, running_postgres

_POSTGRES: Final = {
    "fsync": "on",
    "full_page_writes": "on",
    "autovacuum_naptime": "15s",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_utility": "off",
}
REAL: Final = Path(__file__).parents[2] / "tests" / "real"


class Installation:
    """The processes, by name: `api-0` and so on, `worker-0` and so on."""

    def __init__(self, folder: Path, places: str, window: int, stack: ExitStack) -> None:
        """`places`: the settings that say where state and bytes are."""
        self.addresses: dict[str, str] = {}
        self.folder = folder
        self._places = places
        self._window = window
        self._stack = stack
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Starts the process, or starts it again."""
        config = self.folder / f"{name}.toml"
        config.write_text(
            f"[server]\nport = 0\ndata_dir = {json.dumps(str(self.folder / name))}\n"
            f"{self._places}"
            "[limits]\nrequests_per_batch = 1000000\nfile_bytes = 4000000000\n"
            "enqueued_tokens_per_model = 10000000000\n"
            f'[[source]]\nkind = "file"\npath = {json.dumps(str(self.folder / "engines.json"))}\n'
            f'models = ["{MODEL}"]\nwindow = {self._window}\n'
        )
        words = ["serve", "--role", "api"] if name.startswith("api") else ["worker"]
        command = [sys.executable, "-m", "lowtide", *words, "--config", str(config), "--json"]
        log = self._stack.enter_context((self.folder / f"{name}.log").open("a"))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        self._stack.callback(_end, process)
        self._running[name] = process
        reported = first_line(process)
        if "address" in reported and name.startswith("api"):
            self.addresses[name] = reported["address"]

    def memory_mb(self) -> float:
        """Resident sets of all processes that run."""
        return sum(_resident_mb(process.pid) for process in self._running.values())

    def kill(self, name: str) -> None:
        """Kills the process as a crash would."""
        self.addresses.pop(name, None)
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)

    def put(self, ports: Sequence[int]) -> None:
        """Replaces the list of engines."""
        path = self.folder / "engines.json"
        entries = [{"name": f"e{p}", "address": "127.0.0.1", "port": str(p)} for p in ports]
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps({"endpoints": entries}))
        beside.rename(path)


def _resident_mb(pid: int) -> float:
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1000 if found is not None else 0.0


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def engines(count: int, delay_ms: float) -> Iterator[list[int]]:
    """Simulated engines in a process of their own; their ports."""
    command = [sys.executable, "-m", "bench.fleet.engines", "--engines", str(count)]
    command += ["--delay-ms", str(delay_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            ports: list[int] = first_line(process)["ports"]
            yield ports
        finally:
            process.terminate()


@contextmanager
def bucket(kind: str, folder: Path) -> Iterator[str]:
    """Where the bytes are: `ceph`, its S3 gateway in memory, as `make test-real` has it; `moto`, an
    S3 in Python for a try; or `folder`. The `blob_url`.
    """
    if kind == "folder":
        yield (folder / "blobs").as_uri()
        return
    with _s3(kind) as endpoint:
        os.environ |= {
            "AWS_ENDPOINT": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        import botocore.session

        session = botocore.session.get_session()
        session.create_client("s3", endpoint_url=endpoint).create_bucket(Bucket="fleet")
        yield "s3://fleet/run"


@contextmanager
def _s3(kind: str) -> Iterator[str]:
    if kind == "ceph":
        sys.path.insert(0, str(REAL))
        import ceph

        with ceph.running_ceph() as running:
            yield running.endpoint
        return
    from moto.server import ThreadedMotoServer  # type: ignore[import-untyped]

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def database() -> Iterator[tuple[PostgresServer, str]]:
    """A durable PostgreSQL that counts what its statements cost; the server, and the name of a
    database. Debian's where it is installed, that of the tests otherwise.
    """
    debian = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if debian:
        os.environ.setdefault("POSTGRES_BIN", str(max(debian)))
    with running_postgres(_POSTGRES) as server, server.database() as name:
        server.sql("CREATE EXTENSION pg_stat_statements", database=name)
        yield server, name


def places(database_url: str, blob_url: str) -> str:
    """The settings of state and bytes, the same for each process."""
    values: Mapping[str, Any] = {
        "database_url": database_url,
        "blob_url": blob_url,
        "upload_secret": secrets.token_hex(32),
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
