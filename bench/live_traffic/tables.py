"""From runs to the tables of docs/live-traffic.md: medians over seeds, with the spread."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, Final

Run = dict[str, Any]
_AIM: Final = 1.10


def beside_live(runs: Sequence[Run], load: str, setup: str) -> list[str]:
    """One live load under one set of engine flags: a row for each rule."""
    rows = [
        f"| {load} | TTFT p99 | × no batch | ITL p99 | × no batch | TTFT ≤ 1 s |"
        " batch prompt tokens/s | of the bound | lost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    chosen = [r for r in runs if (r["load"], r["setup"], r["kind"]) == (load, setup, "summ")]
    alone = {r["seed"]: r for r in chosen if r["rule"] == "no batch"}
    for rule, those in _grouped(chosen, "rule").items():
        ttft, itl = _over(those, alone, "ttft_p99"), _over(those, alone, "itl_p99")
        rows.append(
            f"| {_bold(rule)} | {_seconds(those, 'ttft_p99')} | {ttft} |"
            f" {_millis(those, 'itl_p99')} | {itl} | {_percent(those, 'ttft_met')} |"
            f" {_thousands(those, 'batch_in_per_s')} | {_share(those, 'of_bound')} |"
            f" {_percent(those, 'lost_share')} |"
        )
    return rows


def summary(runs: Sequence[Run], loads: Iterable[str], setups: Iterable[str]) -> list[str]:
    """The rules that matter to an operator, under all loads and flags."""
    rows = [
        "| flags | live load | rule | TTFT p99 | × no batch | ITL p99 | × no batch |"
        " of the bound |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for setup, load in product(setups, loads):
        chosen = [r for r in runs if (r["load"], r["setup"], r["kind"]) == (load, setup, "summ")]
        alone = {r["seed"]: r for r in chosen if r["rule"] == "no batch"}
        for rule in ("no batch", "fixed 256", "Lowtide"):
            those = [r for r in chosen if r["rule"] == rule]
            if those:
                rows.append(
                    f"| {setup} | {load} | {_bold(rule)} | {_seconds(those, 'ttft_p99')} |"
                    f" {_over(those, alone, 'ttft_p99')} | {_millis(those, 'itl_p99')} |"
                    f" {_over(those, alone, 'itl_p99')} | {_share(those, 'of_bound')} |"
                )
    return rows


def day_by_kind(runs: Sequence[Run]) -> list[str]:
    """The day again, for each kind of batch."""
    rows = [
        "| batch | rule | TTFT p99 | ITL p99 | of the bound | preempted |",
        "|---|---|---|---|---|---|",
    ]
    rules = ("no batch", "night only", "night only, long day", "fixed 256", "Lowtide")
    for kind in ("summ", "chat", "longgen"):
        chosen = [
            r
            for r in runs
            if "day" in r["load"] and r["setup"] == "recommended" and r["kind"] == kind
        ]
        for rule in rules:
            those = [r for r in chosen if r["rule"] == rule]
            if those:
                rows.append(
                    f"| {kind} | {_bold(rule)} | {_seconds(those, 'ttft_p99')} |"
                    f" {_millis(those, 'itl_p99')} | {_share(those, 'of_bound')} |"
                    f" {_median(those, 'preemptions'):.0f} |"
                )
    return rows


def races(runs: Sequence[Run]) -> list[str]:
    """Batches alone: the makespan bound's share, and against the best window known afterwards."""
    rows = [
        "| engine | batch | fixed 64 | fixed 256 | run-batch | best fixed | Lowtide |"
        " of the best |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (profile, kind), those in _grouped(runs, "profile", "kind").items():
        fixed = {w: _median(_where(those, w), "of_bound") for w in _windows(those)}
        ours = _where(those, None)
        best = max(fixed.values())
        ratios = [run["of_bound"] / _best_of(those, run["seed"]) for run in ours]
        rows.append(
            f"| {profile} | {kind} | {fixed[64]:.3f} | {fixed[256]:.3f} | {fixed[2048]:.3f} |"
            f" {best:.3f} | **{_median(ours, 'of_bound'):.3f}** | {_spread(ratios, '{:.3f}')} |"
        )
    return rows


def prefixes(runs: Sequence[Run]) -> list[str]:
    rows = [
        "| file | order | prefix work | of the bound | seconds |",
        "|---|---|---|---|---|",
    ]
    for (shape, order), those in _grouped(runs, "shape", "order").items():
        work = _spread([r["prefix_work"] for r in those], "{:.2f}")
        rows.append(
            f"| {shape} | {_bold(order)} | {work} | {_share(those, 'of_bound')} |"
            f" {_median(those, 'seconds'):.1f} |"
        )
    return rows


def _grouped(runs: Iterable[Run], *keys: str) -> dict[Any, list[Run]]:
    groups: dict[Any, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run[keys[0]] if len(keys) == 1 else tuple(run[key] for key in keys)].append(run)
    return groups


def _where(runs: Iterable[Run], window: int | None) -> list[Run]:
    return [run for run in runs if run["window"] == window]


def _windows(runs: Iterable[Run]) -> list[int]:
    return sorted({run["window"] for run in runs if run["window"] is not None})


def _best_of(runs: Iterable[Run], seed: int) -> float:
    return max(
        float(run["of_bound"]) for run in runs if run["seed"] == seed and run["window"] is not None
    )


def _median(runs: Iterable[Run], key: str) -> float:
    return statistics.median(float(run[key]) for run in runs)


def _spread(values: Sequence[float], form: str) -> str:
    """The median, and in brackets the least and the most where they differ from it."""
    middle, low, high = (
        form.format(value) for value in (statistics.median(values), min(values), max(values))
    )
    return middle if low == high else f"{middle} ({low} to {high})"


def _over(runs: Sequence[Run], alone: dict[int, Run], key: str) -> str:
    ratios = [run[key] / alone[run["seed"]][key] for run in runs if run["seed"] in alone]
    if not ratios or math.isnan(ratios[0]):
        return "–"
    text = f"{statistics.median(ratios):.2f}"
    return text if statistics.median(ratios) > _AIM else f"{text} ✓"


def _seconds(runs: Sequence[Run], key: str) -> str:
    values = [float(run[key]) for run in runs]
    form = "{:.2f} s" if statistics.median(values) < 10 else "{:.0f} s"
    return _spread(values, form)


def _millis(runs: Sequence[Run], key: str) -> str:
    return _spread([1_000 * float(run[key]) for run in runs], "{:.0f} ms")


def _percent(runs: Sequence[Run], key: str) -> str:
    return f"{100 * _median(runs, key):.1f} %"


def _share(runs: Sequence[Run], key: str) -> str:
    return _spread([float(run[key]) for run in runs], "{:.2f}")


def _thousands(runs: Sequence[Run], key: str) -> str:
    return f"{_median(runs, key) / 1_000:.1f} k"


def _bold(name: str) -> str:
    return f"**{name}**" if name.startswith("Lowtide") else name
