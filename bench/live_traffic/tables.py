"""From runs to the tables of docs/live-traffic.md: medians over seeds, with the spread."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, Final

from lowtide.engine_sim.scheduling.step_budget import TOLERANCE

Run = dict[str, Any]
_AIM: Final = 1.10
_LIVE: Final = ("TTFT p99", "× no batch", "ITL p99", "× no batch")
"""Heads of `_live`."""


def beside_live(runs: Sequence[Run], load: str, setup: str) -> list[str]:
    """One live load under one set of engine flags: a row for each rule."""
    rows = _head(load, *_LIVE, "TTFT ≤ 1 s", "batch prompt tokens/s", "of the bound", "lost")
    chosen = _chosen(runs, load, setup)
    for rule, those in _grouped(chosen, "rule").items():
        rows.append(
            _row(
                _bold(rule),
                *_live(those, chosen),
                _percent(those, "ttft_met"),
                _thousands(those, "batch_in_per_s"),
                _share(those, "of_bound"),
                _percent(those, "lost_share"),
            )
        )
    return rows


def summary(runs: Sequence[Run], loads: Iterable[str], setups: Iterable[str]) -> list[str]:
    """The rules that matter to an operator, under all loads and flags."""
    rows = _head("flags", "live load", "rule", *_LIVE, "of the bound")
    for setup, load in product(setups, loads):
        chosen = _chosen(runs, load, setup)
        rules = _grouped(chosen, "rule")
        for rule in ("no batch", "fixed 256", "Lowtide"):
            if those := rules.get(rule):
                share = _share(those, "of_bound")
                rows.append(_row(setup, load, _bold(rule), *_live(those, chosen), share))
    return rows


def with_class(
    runs: Sequence[Run], loads: Iterable[str], own: str, other: str | None = None
) -> list[str]:
    """Batch beside live traffic in an engine with the scheduler class, against no batch at all, and
    in one that is set to the `other` tolerance.
    """
    rows = _head("live load", "batch", *_LIVE, "of the bound", "preempted")
    alone = [run for run in runs if run["rule"] == "no batch"]
    chosen = [run for run in runs if run["setup"] in (own, other)]
    for load in loads:
        quiet = [run for run in alone if run["load"] == load]
        kinds = _grouped([run for run in chosen if run["load"] == load], "kind", "setup")
        if quiet and kinds:
            rows.append(_row(load, "none", *_live(quiet, quiet), "0.00", "0"))
        own_first = sorted(kinds.items(), key=lambda item: item[0][1] != own)
        for (kind, setup), those in sorted(own_first, key=lambda item: item[0][0], reverse=True):
            name = kind if setup == own else f"{kind}, {setup}"
            preempted = f"{_median(those, 'preemptions'):.0f}"
            shares = _share(those, "of_bound")
            rows.append(_row(load, name, *_live(those, quiet), shares, preempted))
    return rows


def over_tolerance(runs: Sequence[Run], loads: Iterable[str], own: str) -> list[str]:
    """What each tolerance gives the batch, and what live users pay; `own` has the class's own."""
    rows = _head("live load", "tolerance", *_LIVE, "of the bound")
    for load in loads:
        here = [run for run in runs if run["load"] == load and run["kind"] == "summ"]
        quiet = [run for run in here if run["rule"] == "no batch"]
        setups = _grouped([run for run in here if run["rule"] == "Lowtide"], "setup")
        curve = {_tolerance(n, own): r for n, r in setups.items() if n == own or n[:3] == "tol"}
        for tolerance, those in sorted(curve.items()):
            share = _share(those, "of_bound")
            rows.append(_row(load, f"{tolerance}", *_live(those, quiet), share))
    return rows


def with_steps(runs: Sequence[Run], loads: Iterable[str]) -> list[str]:
    """The class in engines with smaller steps, against no batch in one with vLLM's defaults."""
    rows = _head("live load", "steps of, tolerance", *_LIVE, "of the bound")
    for load in loads:
        here = [run for run in runs if run["load"] == load]
        quiet = [run for run in here if run["rule"] == "no batch"]
        setups = _grouped([run for run in here if run["rule"] == "Lowtide"], "setup")
        for setup, those in setups.items():
            share = _share(those, "of_bound")
            rows.append(_row(load, setup.removeprefix("steps of "), *_live(those, quiet), share))
    return rows


def frontier(runs: Sequence[Run], loads: Iterable[str]) -> list[str]:
    """Lowtide with stock flags, sending less and less, or prompts in parts."""
    rows = _head("live load", "rule", *_LIVE, "of the bound")
    for load in loads:
        here = [run for run in runs if run["load"] == load]
        for rule, those in _grouped(here, "rule").items():
            if rule != "no batch":
                rows.append(_row(load, rule, *_live(those, here), _share(those, "of_bound")))
    return rows


def _tolerance(setup: str, own: str) -> float:
    return TOLERANCE if setup == own else float(setup.removeprefix("tolerance "))


def day_by_kind(runs: Sequence[Run]) -> list[str]:
    """The day again, for each kind of batch."""
    rows = _head("batch", "rule", "TTFT p99", "ITL p99", "of the bound", "preempted")
    days = [run for run in runs if "day" in run["load"] and run["setup"] == "recommended"]
    for kind in ("summ", "chat", "longgen"):
        rules = _grouped([run for run in days if run["kind"] == kind], "rule")
        for rule in ("no batch", "night only", "night only, long day", "fixed 256", "Lowtide"):
            if those := rules.get(rule):
                rows.append(
                    _row(
                        kind,
                        _bold(rule),
                        _seconds(those, "ttft_p99"),
                        _millis(those, "itl_p99"),
                        _share(those, "of_bound"),
                        f"{_median(those, 'preemptions'):.0f}",
                    )
                )
    return rows


def races(runs: Sequence[Run]) -> list[str]:
    """Batches alone: the makespan bound's share, and against the best window known afterwards."""
    others = ("fixed 64", "fixed 256", "fixed 2048", "Gradient2", "AIBrix AIMD")
    rows = _head("engine", "batch", *others, "best fixed", "Lowtide", "of the best")
    for (profile, kind), those in _grouped(runs, "profile", "kind").items():
        rules = {rule: _median(runs, "of_bound") for rule, runs in _grouped(those, "rule").items()}
        best = max(share for rule, share in rules.items() if rule.startswith("fixed"))
        ours = [run for run in those if run["rule"] == "Lowtide"]
        ratios = [run["of_bound"] / _best_of(those, run["seed"]) for run in ours]
        shares = [f"{rules[rule]:.3f}" for rule in others]
        mine = f"**{rules['Lowtide']:.3f}**"
        rows.append(_row(profile, kind, *shares, f"{best:.3f}", mine, _spread(ratios, "{:.3f}")))
    return rows


def prefixes(runs: Sequence[Run]) -> list[str]:
    rows = _head("file", "order", "prefix work", "of the bound", "seconds")
    for (shape, order), those in _grouped(runs, "shape", "order").items():
        work = _spread([r["prefix_work"] for r in those], "{:.2f}")
        seconds = f"{_median(those, 'seconds'):.1f}"
        rows.append(_row(shape, _bold(order), work, _share(those, "of_bound"), seconds))
    return rows


def merged(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The rows of `old`, each replaced by that of `new` with the same words in front."""
    fresh = {_key(row): row for row in new}
    return [fresh.get(_key(row), row) for row in old]


def _key(row: str) -> tuple[str, ...]:
    """The cells of a row up to its first figure."""
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    figures = (place for place, cell in enumerate(cells) if place and cell[:1].isdigit())
    return tuple(cells[: next(figures, len(cells))])


def _head(*names: str) -> list[str]:
    return [_row(*names), "|" + "---|" * len(names)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _chosen(runs: Iterable[Run], load: str, setup: str) -> list[Run]:
    return [r for r in runs if (r["load"], r["setup"], r["kind"]) == (load, setup, "summ")]


def _live(those: Sequence[Run], beside: Iterable[Run]) -> list[str]:
    """What live users felt, also as multiples of what they feel without a batch."""
    alone = {run["seed"]: run for run in beside if run["rule"] == "no batch"}
    return [
        _seconds(those, "ttft_p99"),
        _over(those, alone, "ttft_p99"),
        _millis(those, "itl_p99"),
        _over(those, alone, "itl_p99"),
    ]


def _grouped(runs: Iterable[Run], *keys: str) -> dict[Any, list[Run]]:
    groups: dict[Any, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run[keys[0]] if len(keys) == 1 else tuple(run[key] for key in keys)].append(run)
    return groups


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
