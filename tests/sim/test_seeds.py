"""Seeds of the simulator: every promise is kept in each, and a seed is one run, whoever plays it.

SIM_SEEDS sets how many are played (25 in the test command, by two processes side by side); `make
sim-long` plays a thousand.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from testkit.sim.fault_kinds import FaultKind
from testkit.sim.field import REPLIES
from testkit.sim.rounds import Summary

SEEDS = int(os.environ.get("SIM_SEEDS", "25"))
PATIENCE_S = 600 + 60 * SEEDS
"""Far more than they take beside others that want the same cores; a seed that hangs must end."""
TIMES_MIN = 3
"""Of each kind of fault, in fifty seeds."""
IN_THE_FIELD = {
    *REPLIES,
    FaultKind.BALANCER_CUT,
    FaultKind.QUEUE_TIMED_OUT,
    FaultKind.LINE_MISTAKEN,
}
"""Each of these is in few of so many seeds; all of them are in the hundreds of a long run."""
DEATHS_MIN = 30
"""Different awaits of the product at which a process was killed, likewise."""


def play(*flags: str, hash_seed: str = "random", timeout_s: float = PATIENCE_S) -> str:
    """What a run of the program says; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "testkit.sim", *flags],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    return done.stdout


@pytest.mark.timeout(PATIENCE_S)
def test_every_seed_keeps_every_promise(tmp_path: Path) -> None:
    report = tmp_path / "summary.json"
    said = play(*("--seeds", f"0..{SEEDS}", "--jobs", "2", "--json", str(report)))
    summary = msgspec.json.decode(report.read_bytes(), type=Summary)
    assert (summary.seeds, summary.broken) == (SEEDS, [])
    assert set(summary.faults) == set(FaultKind), "each kind is in the account, happened or not"
    if SEEDS >= 50:
        counts = summary.faults
        rare = {kind: n for kind, n in counts.items() if n < TIMES_MIN and kind not in IN_THE_FIELD}
        if sum(counts[kind] for kind in IN_THE_FIELD) < TIMES_MIN:
            rare["any of those in the field"] = 0
        assert not rare, f"too few to prove anything: {rare}\n{said}"
        assert len(summary.deaths) >= DEATHS_MIN, said


def story(said: str) -> str:
    """The lines of a verbose run that tell what happened; each begins with its second."""
    return "\n".join(line for line in said.splitlines() if re.match(r" *\d+\.\d{3} ", line))


@pytest.fixture(scope="module")
def alone() -> str:
    """One seed by itself: short, and full of failures."""
    return play("--seed", "14", "--verbose", hash_seed="1")


def digest(said: str) -> str:
    found = re.search(r"^trace ([0-9a-f]{64})$", said, re.MULTILINE)
    assert found is not None, said
    return found[1]


@pytest.mark.timeout(PATIENCE_S)
def test_a_seed_alone_is_the_same_run_as_in_a_row(alone: str) -> None:
    row = play("--seeds", "13..15", "--verbose")
    assert len(story(alone).splitlines()) > 10
    assert story(alone) in story(row)


@pytest.mark.timeout(120)
def test_a_seed_is_the_same_run_whatever_the_hash_seed(alone: str) -> None:
    assert digest(play("--seed", "14", hash_seed="2")) == digest(alone)
