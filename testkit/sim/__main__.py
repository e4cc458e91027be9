"""`python -m testkit.sim --seed N`, or `--seeds A..B`: play, report, say how to replay.

Exit code 1 when a promise was broken. A run depends on the order of sets of strings, so the hash
seed is fixed first.
"""

import argparse
import os
import sys
from pathlib import Path

import msgspec

from testkit.sim.rounds import RunProgress, Summary, played
from testkit.sim.simulation import Played

TRACE_LINES_SHOWN = 60


def main() -> int:
    """The command line."""
    asked = _parser().parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "testkit.sim", *sys.argv[1:]])
    first, last = (asked.seed, asked.seed + 1) if asked.seeds is None else asked.seeds
    summary = _play_all(range(first, last), asked)
    if asked.json:
        asked.json.write_bytes(msgspec.json.encode(summary))
    return 1 if summary.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testkit.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="play this one")
    parser.add_argument("--seeds", type=_range, help="play these: A..B, B not included")
    parser.add_argument("--jobs", type=int, default=1, help="by so many processes")
    parser.add_argument("--verbose", action="store_true", help="print everything that happens")
    parser.add_argument("--steered", action="store_true", help="pause, change, retry, delete")
    parser.add_argument("--json", type=Path, help="write the summary there, too")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="stop after so long")
    return parser


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("..")
    return int(first), int(last)


def _play_all(seeds: range, asked: argparse.Namespace) -> Summary:
    summary, progress = Summary(), RunProgress(len(seeds))
    jobs = min(asked.jobs, len(seeds))
    with played(seeds, jobs=jobs, verbose=asked.verbose, is_steered=asked.steered) as runs:
        for run in runs:
            summary.add(run)
            _report(run, whole=len(seeds) == 1, flag=" --steered" * asked.steered)
            progress.tell(summary)
            if progress.passed_s > asked.budget_s:
                break
    summary.wall_s = progress.passed_s
    if len(seeds) > 1:
        print(summary.table())
    return summary


def _report(run: Played, *, whole: bool, flag: str = "") -> None:
    if run.broken is not None:
        print("\n".join(run.trace[-TRACE_LINES_SHOWN:]))
        command = f"make sim SEED={run.seed}"
        if flag:
            command = f"python -m testkit.sim --seed {run.seed}{flag}"
        print(f"seed {run.seed}: {run.broken}\nreplay: {command}", flush=True)
    elif whole:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(run.counts.items()))
        faults = ", ".join(f"{name} {count}" for name, count in sorted(run.faults.items()))
        print(
            f"seed {run.seed}: every promise kept in {run.virtual_s:.0f} virtual seconds,"
            f" {run.steps} steps, {run.commits} commits\nfaults: {faults}\nlog: {counts}"
        )
    if whole:
        print(f"trace {run.digest}")


if __name__ == "__main__":
    sys.exit(main())
