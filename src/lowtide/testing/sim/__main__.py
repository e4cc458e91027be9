"""`python -m lowtide.testing.sim --seed N`, or `--seeds A..B`: play, report, say how to replay.

Exit code 1 when a promise was broken. A run depends on the order of sets of strings, so the hash
seed is fixed first.
"""

import argparse
import gc
import os
import shutil
import sys
import time

from lowtide.testing.sim.world import Played, Stores, open_stores, play

TRACE_LINES_SHOWN = 60


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="lowtide.testing.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one")
    parser.add_argument("--seeds", help="play these: A..B, B not included")
    parser.add_argument("--verbose", action="store_true", help="print everything that happens")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="stop after so long")
    asked = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "lowtide.testing.sim", *sys.argv[1:]])
    first, last = _range(asked)
    stores = open_stores()
    try:
        return _play_all(range(first, last), stores, asked)
    finally:
        shutil.rmtree(stores.path.parent)


def _range(asked: argparse.Namespace) -> tuple[int, int]:
    if asked.seeds:
        first, _, last = asked.seeds.partition("..")
        return int(first), int(last)
    seed = asked.seed if asked.seed is not None else 0
    return seed, seed + 1


def _play_all(seeds: range, stores: Stores, asked: argparse.Namespace) -> int:
    begun, broken, played = time.perf_counter(), [], 0
    for seed in seeds:
        run = play(seed, stores, verbose=asked.verbose)
        played += 1
        if played == 1:
            gc.freeze()  # modules and compiled statements: not to be looked through each time
        _report(run, whole=len(seeds) == 1)
        if run.broken is not None:
            broken.append(seed)
        if time.perf_counter() - begun > asked.budget_s:
            break
    wall_s = time.perf_counter() - begun
    print(f"{played} seeds in {wall_s:.1f} s, {played / wall_s:.2f} a second; broken: {broken}")
    return 1 if broken else 0


def _report(run: Played, *, whole: bool) -> None:
    if run.broken is not None:
        print("\n".join(run.trace[-TRACE_LINES_SHOWN:]))
        print(f"seed {run.seed}: {run.broken}\nreplay: make sim SEED={run.seed}", flush=True)
    elif whole:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(run.counts.items()))
        print(
            f"seed {run.seed}: every promise kept in {run.virtual_s:.0f} virtual seconds,"
            f" {run.steps} steps, {run.commits} commits ({counts})"
        )


if __name__ == "__main__":
    sys.exit(main())
