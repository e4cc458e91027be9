"""The processes of a benchmark: an instant backend, a Lowtide server, and what they used.

Every process is a child of ours, on 127.0.0.1 with a free port, and ends with its context.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.backend import MODEL

STOP_TIMEOUT_S = 30


@dataclass(frozen=True)
class Server:
    """A running `lowtide serve`."""

    address: str
    pid: int

    def peak_memory_mb(self) -> float:
        """Largest resident set so far (Linux `VmHWM`), in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None, "the kernel reports VmHWM"
        return int(found[1]) / 1000


@contextmanager
def backend(delay_ms: float = 0.0, ms_per_token: float = 0.0) -> Iterator[str]:
    """The bench backend in a process of its own; its base URL."""
    command = [sys.executable, "-m", "bench.backend", "--port", "0"]
    command += ["--delay-ms", str(delay_ms), "--ms-per-token", str(ms_per_token)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield first_line(process)["url"]
        finally:
            process.terminate()


@contextmanager
def lowtide(folder: Path, backend_url: str, window: int) -> Iterator[Server]:
    """`lowtide serve` over a fresh data directory with one replica."""
    settings = (
        "[limits]\nrequests_per_batch = 1000000\nenqueued_tokens_per_model = 1000000000\n"
        f'[[replica]]\nurl = "{backend_url}"\nmodels = ["{MODEL}"]\nwindow = {window}\n'
    )
    with serving(folder, settings) as server:
        yield server


@contextmanager
def serving(folder: Path, settings: str, module: str = "lowtide") -> Iterator[Server]:
    """`lowtide serve` with those settings, over a fresh data directory in `folder`. `module`: what
    stands for the command `lowtide`.
    """
    config = folder / "lowtide.toml"
    where = f"[server]\nport = 0\ndata_dir = {json.dumps(str(folder / 'data'))}\n"
    config.write_text(where + settings)
    command = [sys.executable, "-m", module, "serve", "--config", str(config), "--json"]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            yield Server(first_line(process)["address"], process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)


def first_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a process says when it is ready. Raises RuntimeError when it ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended before it was ready")
    ready: dict[str, Any] = json.loads(line)
    return ready
