"""The child's belts and reports, without a model. With one: tests/e2e/test_embedded_engine.py."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lowtide.engines.embedded.child import MODEL_REFUSED, PORT_TAKEN, _parse, _port_is_free
from testkit.patience import PATIENCE_S

ARGUMENTS = ["--model-id", "m", "--slots", "1", "--context", "64", "--threads", "1"]


def child(*, port: int, parent: int, model: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lowtide.engines.embedded.child", *ARGUMENTS]
    command += ["--port", str(port), "--parent", str(parent), "--model", str(model)]
    with socket.socket() as _:  # a pipe that stays open stands for a parent that lives
        reader, writer = os.pipe()
        try:
            return subprocess.run(
                command,
                stdin=reader,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        finally:
            os.close(reader)
            os.close(writer)


def test_a_model_that_llama_refuses_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    done = child(port=0, parent=os.getpid(), model=path)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"event": "failed", "code": MODEL_REFUSED}
    assert "Traceback" not in done.stderr
    assert str(path) in done.stderr


def test_a_port_that_is_taken_is_told_apart_from_a_bad_model(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = child(port=port, parent=os.getpid(), model=tmp_path / "any.gguf")
    assert json.loads(done.stdout) == {"event": "failed", "code": PORT_TAKEN}


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_child_whose_parent_died_before_its_first_line_leaves_at_once(tmp_path: Path) -> None:
    done = child(port=0, parent=1, model=tmp_path / "any.gguf")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_reserved_port_counts_as_free() -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        if sys.platform == "linux":
            assert _port_is_free(port)
        reserved.listen()
        assert not _port_is_free(port)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(SystemExit):
        _parse([*ARGUMENTS, "--port", "0", "--parent", "1", "--model", "m", "--pooling", "max"])
