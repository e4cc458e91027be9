"""The simulator's checkers catch what they are there for: the bugs of `planted_bugs.py`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE_S = 3600.0
"""Far more than they take beside others that want the same cores; a bug is found in seconds."""
PROGRAM = Path(__file__).with_name("planted_bugs.py")


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize(
    ("bug", "seeds", "promise"),
    [
        ("fencing", "0..60", "under token"),
        ("commit-loses-slices", "0..5", "0 lines in slices"),
        ("commit-doubles-slices", "0..5", "lines came before"),
        ("recovery-runs-all-again", "25..60", "nothing says why|not over after"),
        ("recovery-forgets-bitmap", "36..60", "fell behind"),
        ("ownership-without-end", "0..60", "owned by"),
        ("any-5xx-holds-all", "0..60", "duel: "),
        ("a-doubt-holds-live-calls", "24..60", "live call [0-9]+ failed: model_unavailable"),
        ("401-is-final", "0..60", "burnt"),
        ("no-trial-before-blame", "3..60", "burnt|not over after"),
        ("end-without-event", "0..5", "ended without an event"),
        ("delivered-before-sent", "0..60", "never told"),
        ("no-reason", "26..60", "nothing says why"),
        ("any-200-is-an-answer", "0..60", "no engine said"),
    ],
)
def test_a_planted_bug_is_caught_by_a_few_seeds(bug: str, seeds: str, promise: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), bug, seeds],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(promise, done.stdout), done.stdout
    print(f"{bug}: {done.stdout}")
