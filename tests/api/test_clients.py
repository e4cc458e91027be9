"""The clients people have, in their current versions, through a whole life against the real thing.

The scripts, and what they check, are those of `make test-clients`, which runs older versions and
wrappers as well: upload, create, poll, both result files, lists, cancel, delete, refusals;
synchronous and asynchronous; by the shared paths and by the fixed mounts.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "clients" / "run.py"


def checks_passed(client: str) -> int:
    done = subprocess.run(
        [sys.executable, str(RUN), client], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"^(\d+) passed, 0 failed$", done.stdout, re.MULTILINE)
    assert counted is not None, done.stdout
    return int(counted[1])


@pytest.mark.parametrize("client", ["openai-3.51.0", "together-3.1.1"])
def test_an_sdk_lives_its_whole_life(client: str) -> None:
    assert checks_passed(client) > 60


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_curl_lives_its_whole_life() -> None:
    assert checks_passed("curl") > 50
