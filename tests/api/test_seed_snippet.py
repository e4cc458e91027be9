"""The launch announcement's own code, run by the SDK of its day against the real thing.

together 1.x and 3.x cannot share an environment, so the old one has its own, made once from hashed
pins (`tests/clients/environments.py`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.live_server import LiveServer, live_server
from testkit.patience import PATIENCE_S

CLIENTS = Path(__file__).parents[1] / "clients"
SNIPPET = CLIENTS / "scripts" / "seed_snippet.py"
MODEL = "deepseek-ai/DeepSeek-V3"
NO_REGISTRY_EXIT = 3
REQUESTS = {"req1": "Explain quantum computing", "req2": "Erkläre \u2028 Ebbe und Flut"}

pytestmark = pytest.mark.timeout(600)  # the first time downloads 32 packages


@pytest.fixture(scope="module")
def old_python() -> str:
    """A Python that has together 1.6.0, the last version with the announcement's calls."""
    made = subprocess.run(
        [sys.executable, str(CLIENTS / "environments.py"), "together-1.6.0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode == NO_REGISTRY_EXIT:
        pytest.skip("together 1.6.0 is not installed and no package registry can be reached")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(tmp_path, [MODEL]) as running:
        yield running


@pytest.mark.parametrize("base", ["/v1", "/together/v1"])
def test_the_snippet_of_the_announcement_runs(
    old_python: str, server: LiveServer, tmp_path: Path, base: str
) -> None:
    folder = tmp_path / "user"
    folder.mkdir()
    with (folder / "batch_input.jsonl").open("w", encoding="utf-8") as file:
        for custom_id, text in REQUESTS.items():
            messages = [{"role": "user", "content": text}]
            body = {"model": MODEL, "messages": messages, "max_tokens": 200}
            file.write(json.dumps({"custom_id": custom_id, "body": body}) + "\n")
    ran = subprocess.run(
        [old_python, str(SNIPPET)], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S,
        env={
            "PATH": os.environ["PATH"],
            "TOGETHER_BASE_URL": server.address + base,
            "TOGETHER_API_KEY": "key",
            "NO_PROXY": "127.0.0.1",
        }, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr + server.log.read_text()
    results = [
        json.loads(line) for line in (folder / "batch_output.jsonl").read_text().splitlines()
    ]
    answers = {
        result["custom_id"]: result["response"]["body"]["choices"][0]["message"]["content"]
        for result in results
    }
    assert len(results) == len(REQUESTS)
    assert answers == {custom_id: f"echo: {text}" for custom_id, text in REQUESTS.items()}
    assert server.engine.calls == dict.fromkeys(REQUESTS.values(), 1)


def test_the_sdk_itself_refuses_the_announcement_without_an_endpoint(old_python: str) -> None:
    """Why our copy of the snippet has one word more than the announcement."""
    as_announced = "import together; together.Together(api_key='k').batches.create_batch('f')"
    ran = subprocess.run(
        [old_python, "-c", as_announced],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "missing 1 required positional argument: 'endpoint'" in ran.stderr
