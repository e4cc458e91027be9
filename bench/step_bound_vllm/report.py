"""What was measured as Markdown, to be pasted into a page: tables, and sentences with figures."""

import statistics
from collections.abc import Sequence
from typing import Any

from bench.live_traffic.real import NO_BATCH, Run

HOLD_MAX_MS = 500
"""What the class promises: no batch call that generates sits out longer, but for a step."""


def show(found: dict[str, Any]) -> None:
    """Prints each part that was measured."""
    if found["rows"]:
        _rows(found["rows"])
    if found["starvation"]:
        _starvation(found["starvation"])
    if found["alone"]:
        _alone(found["alone"])
    if found["answers"]:
        _answers(found["answers"])
    if found["killed"]:
        _killed(found["killed"])
    for why in found["left_out"]:
        print(f"\nLeft out: {why}.")


def _rows(rows: Sequence[Run]) -> None:
    quiet = [run for run in rows if run["row"] == NO_BATCH]
    print("\n| engine | batch | TTFT p50 | TTFT p99 | × | ITL p50 | ITL p99 | × | batch tokens/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for key in dict.fromkeys((run["engine"], run["row"]) for run in rows):
        these = [run for run in rows if (run["engine"], run["row"]) == key]
        cells = list(key)
        for name in ("ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms"):
            cells.append(_spread([run[name] for run in these], " ms"))
            if name.endswith("p99_ms"):
                cells.append(f"{_median(these, name) / _median(quiet, name):.2f}")
        tokens = _spread([run["batch_tokens_per_s"] for run in these], "")
        cells.append(tokens if key[1] != NO_BATCH else "")
        print(f"| {' | '.join(cells)} |")
    calls = sorted({run["calls"] for run in rows})
    loads = [run["load"] for run in rows]
    print(
        f"\n×: over no batch. {calls[0]} to {calls[-1]} live calls in each row, load of the "
        f"machine {min(loads):.1f} to {max(loads):.1f}, this benchmark in it."
    )


def _starvation(rows: Sequence[dict[str, Any]]) -> None:
    kinds = ("batch, first token", "between two")
    print("\nBeside live calls that never stop:\n")
    print(f"| engine | {kinds[0]} p50 | longest | {kinds[1]} p50 | p99 | longest | live ITL p50 |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        batch, live = row["batch"], row["live"]
        names = ("ttft_p50", "ttft_max", "itl_p50", "itl_p99", "itl_max")
        cells = [f"{batch[f'{name}_ms']:,.0f} ms" for name in names]
        cells.append(f"{live['itl_p50_ms']:,.0f} ms")
        print(f"| {row['engine']} | {' | '.join(cells)} |")
    counts = ", ".join(f"{row['batch']['itl_count']:,}" for row in rows)
    print(f"\nOf {counts} gaps. The class promises {HOLD_MAX_MS} ms between two, and a step.")


def _alone(found: dict[str, Any]) -> None:
    rate, cpu = (
        "{:.3f} (95 % interval {:.3f} to {:.3f})".format(*found[name]) for name in ("rate", "cpu")
    )
    print(
        f"\nA batch alone, with the class over without, {found['pairs']} pairs: tokens a second "
        f"{rate}; the server's processor time for a token {cpu}."
    )


def _answers(found: dict[str, Any]) -> None:
    same = "; ".join(f"{one} and {other} {count}" for one, other, count in found["same"])
    lengths = ", ".join(f"{run} {count}" for run, count in found["of_asked_length"].items())
    print(
        f"\n{found['calls']} greedy calls sent together, {found['live']} of them live. Answers "
        f"that are the same, token for token: {same}. Of the length asked: {lengths}."
    )


def _killed(found: dict[str, Any]) -> None:
    print(
        f"\nKilled in the midst of a batch of {found['lines']}: {found['done_at_kill']} were done; "
        f"the engine was back after {found['engine_up_again_s']} s, the batch ended after "
        f"{found['batch_done_s']} s; {found['answered']} answered, {found['answered_twice']} "
        f"twice, {found['failed']} failed."
    )


def _median(runs: Sequence[Run], name: str) -> float:
    return statistics.median(float(run[name]) for run in runs)


def _spread(values: Sequence[float], unit: str) -> str:
    middle = f"{statistics.median(values):,.0f}{unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.0f} to {max(values):,.0f})"
