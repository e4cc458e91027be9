"""The part of the report that is about scheduling: four benchmarks as Markdown."""

from typing import Any


def scheduling_tables(
    claims: dict[str, Any],
    deadlines: dict[str, Any],
    eta: dict[str, Any],
    scale: dict[str, Any],
) -> list[str]:
    return [
        *_claims(claims),
        *_deadlines(deadlines),
        *_eta(eta),
        *_scale(scale),
    ]


def _claims(found: dict[str, Any]) -> list[str]:
    return [
        "## A claim in the database",
        "",
        "Two chunks a claim, up to 1,000 batches of 100 organizations. The smallest transaction "
        "that the store can commit, in the same run, is the yardstick. What grows is the number of "
        "organizations that wait (1 at the shortest queue, 100 at the longest), not the queue.",
        "",
        "| database | requests queued | chunks | claim | p90 | smallest commit | ratio |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {r['requests']:,} | {r['chunks']:,} | {r['claim_ms']:.1f} ms | "
            f"{r['p90_ms']:.1f} ms | {r['commit_ms']:.2f} ms | "
            f"{r['claim_ms'] / r['commit_ms']:.1f} |"
            for name in ("sqlite", "postgres")
            for r in found[name]
        ),
        "",
    ]


def _deadlines(found: dict[str, Any]) -> list[str]:
    return [
        "## Deadlines and fairness",
        "",
        f"{found['seeds']} seeded runs of three days for each load, through the store's claims and "
        "commits. The yardstick is a fluid schedule that knows capacity and costs in advance and "
        "serves the earliest deadline; ours knows what was learnt, which is off by up to a fifth, "
        "and estimates.",
        "",
        "| load | batches | the yardstick meets | of those met | share |",
        "|---|---|---|---|---|",
        *(
            f"| {r['load']:.2f} | {r['batches']:,} | {r['fluid_meets']:,} | "
            f"{r['of_those_met']:,} | **{r['share']:.2%}** |"
            for r in found["deadlines"]
        ),
        "",
        f"Jain's index over 20 backlogged organizations, by weight: {found['jain_min']:.4f} at "
        f"the end, {found['jain_worst_hour']:.4f} in the worst hour of all seeds.",
        "",
    ]


def _eta(found: dict[str, Any]) -> list[str]:
    return [
        "## When a batch will be done",
        "",
        f"{found['runs_of_each']} simulated runs of each kind, five estimates each from 25 % of "
        "the progress on. A run counts when all five are within 20 % of the time that was left.",
        "",
        "| kind | runs within 20 % | estimates within 20 % | median error |",
        "|---|---|---|---|",
        *(
            f"| {name} | **{r['runs_within']:.0%}** | {r['estimates_within']:.0%} | "
            f"{r['median_error']:.1%} |"
            for name, r in found["kinds"].items()
        ),
        f"| all | **{found['all']['runs_within']:.1%}** | "
        f"{found['all']['estimates_within']:.1%} | |",
        "",
    ]


def _scale(found: dict[str, Any]) -> list[str]:
    return [
        "## Replicas by deadline",
        "",
        "`python -m bench.bench_scale`: weeks of batches in virtual time, on replicas that take "
        "526 s to start. Least: the work, and the starts that no one can do without who knows the "
        "whole week. Beside it as many replicas as were ever needed, always on; and eight as soon "
        "as there is work, none without. Hours of replicas, those of starting included.",
        "",
        "| week | batches | least | Lowtide | ratio | late | starts | always on | at once |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {r['batches']} | {r['least_h']} | {r['paid_h']} | **{r['ratio']:.3f}** | "
            f"{r['late'] or 'none'} | {r['starts']} | {r['always_on_h']} | {r['at_once_h']} |"
            for name, r in found.items()
        ),
        "",
    ]
