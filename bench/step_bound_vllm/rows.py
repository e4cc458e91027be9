"""What live users feel, and what the batch gets: the rows of the table, in real time."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.live_traffic.real import LOWTIDE, NO_BATCH, Run, play
from bench.step_bound_vllm.engine import BATCH_PRIORITY, CLASS, STOCK, Engine

ROWS: Final = 5
AROUND_S: Final = 9.0
"""Beside a row's warm-up and its own seconds: Lowtide starts, has a first line done, and ends."""


def takes_s(asked: argparse.Namespace) -> float:
    return float(asked.rounds * ROWS * (asked.warm_up + asked.seconds + AROUND_S))


async def rows(both: Mapping[str, Engine], asked: argparse.Namespace, folder: Path) -> list[Run]:
    """Every row once in each round; in every other round the class comes first.

    The batch's tokens are the engine's own count, less what it counts in the row without a batch:
    live calls are the same in all rows of a round. Finished calls alone would be too few to count.
    """
    found = []
    for round_ in range(1, asked.rounds + 1):
        names = (STOCK, CLASS) if round_ % 2 else (CLASS, STOCK)
        plan: list[tuple[str, str, int | None]] = [(STOCK, NO_BATCH, None)]
        plan += [(name, f"fixed {asked.window}", asked.window) for name in names]
        plan += [(name, LOWTIDE, None) for name in names]
        live_tokens_per_s = 0.0
        for place, (name, row, window) in enumerate(plan):
            home = folder / f"row-{round_}-{place}"
            run = await play(
                row, window, both[name].target, asked, round_, home,
                priority=BATCH_PRIORITY, counted=both[name].tokens,
            )  # fmt: skip
            live_tokens_per_s = live_tokens_per_s or run["batch_tokens_per_s"]
            run["batch_tokens_per_s"] -= live_tokens_per_s
            found.append({"engine": name, **run})
    return found
