"""Two pictures of docs/live-traffic.md, made from the runs of the tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from bench.live_traffic.experiments import DAY_RULES

Run = dict[str, Any]
RULES: Final = (
    *("no batch", "fixed 64", "fixed 256", "fixed 1024", "run-batch", "Gradient2"),
    *("budget gate", "AIBrix AIMD", "Lowtide", "Lowtide, window = 8"),
)


def trade(runs: Sequence[Run], load: str, setup: str, place: Path) -> None:
    """What each rule gives batches, and what live users pay for it: a mark for each seed."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    chosen = [r for r in runs if (r["load"], r["setup"], r["kind"]) == (load, setup, "summ")]
    for axis, key, label, unit in (
        (left, "ttft_p99", "live TTFT p99, seconds", 1.0),
        (right, "itl_p99", "live inter-token p99, milliseconds", 1_000.0),
    ):
        for rule, marker in zip(RULES, "x^sPDovd*p", strict=True):
            those = [run for run in chosen if run["rule"] == rule]
            x = [run["batch_in_per_s"] / 1_000 for run in those]
            y = [unit * run[key] for run in those]
            ours = rule.startswith("Lowtide")
            color = "tab:blue" if ours else "tab:gray"
            axis.scatter(x, y, s=60 if ours else 30, color=color, marker=marker, label=rule)
        axis.set_yscale("log")
        axis.set_xlabel("batch, thousand prompt tokens a second")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3, which="both")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8)
    figure.suptitle(f"{load} live requests, {setup} flags: right and down is better")
    figure.savefig(place, dpi=90)
    plt.close(figure)


def day(runs: Sequence[Run], place: Path) -> None:
    """Where in the day each rule gets its tokens."""
    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    chosen = {
        run["rule"]: run["series"]
        for run in runs
        if run["load"].startswith("day")
        and (run["setup"], run["kind"]) == ("recommended", "summ")
        and run["rule"] in DAY_RULES
    }
    for rule, style in (("Lowtide", "tab:blue"), ("night only", "tab:orange")):
        minutes = [minute for minute, _ in chosen[rule]]
        axis.plot(minutes, [t / 60_000 for _, (_, t) in chosen[rule]], color=style, label=rule)
    axis.set_xlabel("minute of the simulated day")
    axis.set_ylabel("batch, thousand prompt tokens a second")
    live = axis.twinx()
    series = chosen["no batch"]
    live.fill_between(
        [minute for minute, _ in series],
        [count / 60 for _, (count, _) in series],
        color="tab:gray",
        alpha=0.25,
        label="live",
    )
    live.set_ylabel("live requests a second (grey)")
    axis.set_ylim(bottom=0)
    live.set_ylim(bottom=0)
    axis.legend(loc="upper center")
    figure.savefig(place, dpi=90)
    plt.close(figure)
