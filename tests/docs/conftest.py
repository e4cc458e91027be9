"""The server that most pages start."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from testkit.patience import PATIENCE_S

MODEL = os.environ.get("COOKBOOK_MODEL", "random")


@pytest.fixture(scope="module")
def server_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one `lowtide serve`. The random model answers to the name `demo`, too."""
    folder = tmp_path_factory.mktemp("server")
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
        yield int(json.loads(announcement)["address"].rpartition(":")[2])
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE_S)
