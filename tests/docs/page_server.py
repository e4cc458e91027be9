"""The server that most pages start, for `conftest` to run and for tests to name."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testkit.patience import PATIENCE_S

MODEL: Final = os.environ.get("PAGES_MODEL", "random")
"""What answers to `--model demo` on the pages: the random model, or `demo` itself."""
COMMAND: Final = "lowtide serve --model demo"
"""How the pages start it."""


@dataclass(frozen=True, slots=True)
class PageServer:
    """A server that runs: its port, and its installation."""

    port: int
    data_dir: Path

    @property
    def by_command(self) -> dict[str, int]:
        return {COMMAND: self.port}


@contextmanager
def running_server(folder: Path) -> Iterator[PageServer]:
    """One `lowtide serve` in this folder. The random model answers to the name `demo`, too."""
    (folder / "lowtide.toml").write_text('[[model]]\nid = "random"\naliases = ["demo"]\n')
    command = [sys.executable, "-m", "lowtide", "serve", "--model", MODEL, "--port", "0", "--json"]
    command += ["--config", "lowtide.toml"] if MODEL == "random" else []
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert server.stdout is not None
        announcement = server.stdout.readline()
        assert announcement, (folder / "log").read_text()
        port = int(json.loads(announcement)["address"].rpartition(":")[2])
        yield PageServer(port, folder / "lowtide-data")
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE_S)
