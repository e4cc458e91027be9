"""What a round of many seeds says: how far it is, what happened, and how to replay what failed."""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from testkit.sim import __main__ as program
from testkit.sim import rounds
from testkit.sim.fault_kinds import FaultKind
from testkit.sim.rounds import Summary
from testkit.sim.simulation import Played
from testkit.sim.stores import Stores

BROKEN_SEED = 5


def a_run(seed: int) -> Played:
    return Played(
        seed=seed,
        broken="Violation: a line was lost" if seed == BROKEN_SEED else None,
        virtual_s=1800.0,
        steps=10,
        commits=4,
        batches=2,
        lines=30,
        counts={"batch.planned": 2},
        faults={FaultKind.KILLED.value: seed},
        deaths=frozenset({f"loops/dispatch/commit.py:{seed}"}),
        digest=f"{seed:064x}",
        trace=["    1.000 world    it begins"],
    )


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds play at once; number 5 breaks a promise."""

    def play(seed: int, _stores: Stores, *, verbose: bool) -> Played:
        assert not verbose
        return a_run(seed)

    monkeypatch.setattr(rounds, "play", play)
    monkeypatch.setattr(rounds, "play_duel", play)
    monkeypatch.setattr(rounds, "PROGRESS_S", 0.0)
    monkeypatch.setenv("PYTHONHASHSEED", "0")


def run(monkeypatch: pytest.MonkeyPatch, flags: Sequence[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["sim", *flags])
    return program.main()


def row(table: str, name: str) -> str:
    """The figure behind that name."""
    (line,) = (line for line in table.splitlines() if line.startswith(f"{name}  "))
    return line.removeprefix(name).strip()


@pytest.mark.usefixtures("scripted")
def test_a_failing_seed_prints_how_to_replay_it_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, ["--seeds", "4..7"]) == 1
    said = capsys.readouterr()
    assert "it begins" in said.out
    assert "seed 5: Violation: a line was lost\nreplay: make sim SEED=5\n" in said.out
    assert row(said.out, "broken") == "5"


@pytest.mark.usefixtures("scripted")
def test_good_seeds_are_summed_up_and_progress_goes_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = tmp_path / "summary.json"
    assert run(monkeypatch, ["--seeds", "0..4", "--json", str(report)]) == 0
    said = capsys.readouterr()
    assert "2 of 4 seeds, " in said.err
    assert row(said.out, "virtual hours") == "2"
    assert row(said.out, FaultKind.KILLED) == "6 in 4 seeds"
    assert row(said.out, "awaits at which a process died") == "4 (4 in loops)"
    summary = msgspec.json.decode(report.read_bytes(), type=Summary)
    assert (summary.seeds, summary.batches, summary.lines) == (4, 8, 120)
    assert summary.faults[FaultKind.ENGINE_DIED] == 0


@pytest.mark.usefixtures("scripted")
def test_one_seed_prints_the_digest_of_its_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, ["--seed", "2"]) == 0
    said = capsys.readouterr().out
    assert "seed 2: every promise kept in 1800 virtual seconds, 10 steps, 4 commits" in said
    assert f"trace {2:064x}" in said


@pytest.mark.usefixtures("scripted")
def test_a_round_ends_when_its_budget_is_spent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, ["--seeds", "0..4", "--budget-s", "0"]) == 0
    assert "\nbroken" in capsys.readouterr().out


def test_a_summary_counts_in_how_many_seeds_a_fault_happened() -> None:
    summary = Summary()
    for seed in (1, 2):
        summary.add(a_run(seed))
    summary.add(msgspec.structs.replace(a_run(3), faults={}))
    assert summary.faults[FaultKind.KILLED] == 3
    assert summary.seeds_with[FaultKind.KILLED] == 2
