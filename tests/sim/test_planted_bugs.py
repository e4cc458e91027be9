"""The simulator's checkers catch what they are there for: the bugs of `planted_bugs.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("planted_bugs.py")


@pytest.mark.timeout(480)
@pytest.mark.parametrize(
    ("bug", "seeds", "promise"),
    [
        ("fencing", "0..60", "under token"),
        ("commit-loses-slices", "0..5", "0 lines in slices"),
        ("commit-doubles-slices", "0..5", "lines came before"),
        ("recovery-runs-all-again", "0..60", "not over after"),
        ("recovery-forgets-bitmap", "0..60", "fell behind"),
        ("ownership-without-end", "0..60", "owned by"),
    ],
)
def test_a_planted_bug_is_caught_by_a_few_seeds(bug: str, seeds: str, promise: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), bug, seeds],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=470,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert promise in done.stdout
    print(f"{bug}: {done.stdout}")
