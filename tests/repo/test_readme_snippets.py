"""The README's Python runs as it stands, with the real clients against a real server."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import ROOT

from testkit.patience import PATIENCE_S

PROMISED_ADDRESS = "http://127.0.0.1:8000"
STOP_S = PATIENCE_S


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As the README starts it, on a free port; here the random model answers to the name `demo`."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "lowtide.toml").write_text('[[model]]\nid = "random"\naliases = ["demo"]\n')
    command = [sys.executable, "-m", "lowtide", "serve", "--model", "random", "--port", "0"]
    command += ["--json", "--config", "lowtide.toml"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert server.stdout is not None
        announcement = server.stdout.readline()
        assert announcement, (folder / "log").read_text()
        yield json.loads(announcement)["address"]
    finally:
        server.terminate()
        server.communicate(timeout=STOP_S)


def blocks(language: str) -> list[str]:
    """The README's code blocks in that language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)


def snippet(package: str) -> str:
    (found,) = (code for code in blocks("python") if f"from {package} import" in code)
    return found


def run(code: str, address: str, folder: Path) -> str:
    """What the snippet prints, when its address is that of our server."""
    assert PROMISED_ADDRESS in code
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-"],
        input=code.replace(PROMISED_ADDRESS, address),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_together_snippet_gets_its_answer(address: str, tmp_path: Path) -> None:
    (line,) = blocks("json")
    (tmp_path / "batch_input.jsonl").write_text(line)
    printed = run(snippet("together"), address, tmp_path)
    assert printed.split() == ["COMPLETED", "100.0"]
    result = json.loads((tmp_path / "batch_output.jsonl").read_text())
    assert result["custom_id"] == "req1"
    assert result["response"]["body"]["choices"]


def test_the_openai_snippet_gets_its_answer(address: str, tmp_path: Path) -> None:
    (line,) = blocks("json")
    addressed = json.loads(line) | {"method": "POST", "url": "/v1/chat/completions"}
    (tmp_path / "batch_input_openai.jsonl").write_text(json.dumps(addressed) + "\n")
    printed = run(snippet("openai"), address, tmp_path)
    state, result = printed.split("\n", 1)
    assert state.startswith("completed")
    assert "completed=1" in state
    assert json.loads(result)["custom_id"] == "req1"
