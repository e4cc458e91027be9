"""The whole product for tests with real clients: `lowtide serve` as a child, an echo engine behind.

Nothing is replaced but the model. Both listen on 127.0.0.1 with free ports, and both are gone when
the context is left.
"""

import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testkit.echo_engine import EchoEngine, running_echo_engine
from testkit.patience import PATIENCE_S

READY_S: Final = PATIENCE_S
"""How long a server may take to say that it is ready, on a busy machine."""

STOP_S: Final = PATIENCE_S
"""How long it may take to drain and end."""

WINDOW: Final = 16
"""Requests in flight at the engine."""


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A running `lowtide serve`; `address` has no /v1."""

    address: str
    engine: EchoEngine
    log: Path


@contextmanager
def live_server(
    folder: Path, models: Sequence[str], *, commit_interval_s: float = 0.1
) -> Iterator[LiveServer]:
    """Serve `models` from a fresh data directory in `folder`; `server.log` there is its stderr.

    A commit shorter than the default one only saves time: a client's poll sees an end sooner.
    """
    config = folder / "lowtide.toml"
    command = [sys.executable, "-m", "lowtide", "serve", "--config", str(config), "--json"]
    log = folder / "server.log"
    with running_echo_engine() as engine, log.open("wb") as stderr:
        config.write_text(
            f"[server]\nport = 0\ndata_dir = {json.dumps(str(folder / 'data'))}\n"
            f"[dispatch]\ncommit_interval_s = {commit_interval_s}\n"
            f"[[replica]]\nurl = {json.dumps(engine.url)}\nmodels = {json.dumps(list(models))}\n"
            f"window = {WINDOW}\n"
        )
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as server:
            try:
                yield LiveServer(_address(server, log), engine, log)
            finally:
                _stop(server)


def _address(server: "subprocess.Popen[bytes]", log: Path) -> str:
    assert server.stdout is not None
    readable, _, _ = select.select([server.stdout], [], [], READY_S)
    line = server.stdout.readline() if readable else b""
    ready = json.loads(line) if line else {}
    if "address" not in ready:
        raise RuntimeError(f"lowtide serve did not get ready: {ready}\n{log.read_text()}")
    return str(ready["address"])


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
