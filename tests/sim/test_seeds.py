"""Seeds of the simulator: every promise is kept in each, and a seed is one run, whoever plays it.

SIM_SEEDS sets how many are played (50 in the test command, in two processes side by side).
"""

import os
import re
import subprocess
import sys

import pytest

SEEDS = int(os.environ.get("SIM_SEEDS", "50"))
PATIENCE_S = 240 + 2 * SEEDS
FOLDER = re.compile(r"\S*lowtide-sim-\w+")
"""Where a process keeps its database; error messages name it."""


def start(*flags: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "lowtide.testing.sim", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(PATIENCE_S)
def test_every_seed_keeps_every_promise() -> None:
    halves = [
        start("--seeds", f"{first}..{last}")
        for first, last in ((0, SEEDS // 2), (SEEDS // 2, SEEDS))
    ]
    said = [half.communicate(timeout=PATIENCE_S)[0] for half in halves]
    assert [half.returncode for half in halves] == [0, 0], "\n".join(said)


@pytest.mark.timeout(120)
def test_a_seed_alone_is_the_same_run_as_in_a_row() -> None:
    alone, row = start("--seed", "7", "--verbose"), start("--seeds", "6..8", "--verbose")
    run, both = (FOLDER.sub("", p.communicate(timeout=100)[0]) for p in (alone, row))
    story = [line for line in run.splitlines() if line[:9].strip().replace(".", "").isdigit()]
    assert len(story) > 10
    assert "\n".join(story) in both
