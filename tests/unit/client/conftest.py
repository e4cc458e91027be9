"""The Python client against `batch_server`, in a folder of its own."""

from pathlib import Path

import pytest
from batch_server import BatchServer

import lowtide.cli.run.run_client
import lowtide.cli.run.run_target
import lowtide.client.batches
import lowtide.client.map_run
from lowtide.client.stopping import ThreadStop


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchServer:
    made = BatchServer()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("LOWTIDE_SERVER", "LOWTIDE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for module in (
        lowtide.cli.run.run_client,
        lowtide.cli.run.run_target,
        lowtide.client.batches,
        lowtide.client.map_run,
    ):
        monkeypatch.setattr(module, "connect", made.connect)
    monkeypatch.setattr(ThreadStop, "pause", made.pause)
    return made
