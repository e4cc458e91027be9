"""`make bench-live`: every rule beside the same live traffic, on simulated engines.

    python -m bench.live_traffic [--seeds 5] [--quick] [--write] [--only PART]

Virtual time: the figures do not depend on this machine, and the same seeds give the same figures.
`--write` puts tables and pictures into docs/live-traffic.md and docs/live-traffic-tables.md. A part
(--only) writes its own tables, `lowtide` only those of their rows that it has run.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final

from bench.live_traffic import tables
from bench.live_traffic.experiments import (
    CLASS,
    FRONTIER_LOADS,
    LOADS,
    LONG_ANSWERS,
    cells,
    class_cells,
    class_day_cells,
    class_steps_cells,
    frontier_cells,
    lowtide_cells,
    picture_cells,
    play,
    race,
    races,
    tolerance_cells,
)
from bench.live_traffic.prefixes import play_prefixes, prefix_runs

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGES: Final = (DOCS / "live-traffic.md", DOCS / "live-traffic-tables.md")
PICTURES: Final = DOCS / "pictures"
PARTS: Final = {
    "class": class_cells, "class-day": class_day_cells, "class-steps": class_steps_cells,
    "tolerance": tolerance_cells, "lowtide": lowtide_cells, "frontier": frontier_cells,
    "pictures": picture_cells,
}  # fmt: skip
"""What --only may name, beside RIVALS."""
RIVALS: Final = "rivals"
"""Every rule in engines without the scheduler class, races and prefixes."""
Run = dict[str, Any]
Job = tuple[Callable[..., Run], tuple[Any, ...]]


def main() -> None:
    asked = _arguments()
    seeds = range(asked.first_seed, asked.first_seed + (1 if asked.quick else asked.seeds))
    jobs: dict[str, list[Job]] = {
        name: [(play, (cell,)) for cell in cells_of(seeds)]
        for name, cells_of in PARTS.items()
        if asked.only == name or (asked.only is None and name.startswith("class"))
    }
    if asked.only in (None, RIVALS):
        jobs |= {
            "beside": [(play, (cell,)) for cell in cells(seeds)],
            "races": [(race, (run,)) for run in races(seeds)],
            "prefixes": [(play_prefixes, run) for run in prefix_runs(seeds)],
        }
    runs = _run_all(jobs, asked.jobs)
    if asked.json:
        asked.json.write_text(json.dumps(runs))
    parts = _class_tables(runs)
    if "beside" in runs:
        parts |= _beside_tables(runs["beside"], ("recommended", "smooth", "stock"))
        parts |= _other_tables(runs)
    if "lowtide" in runs:
        parts |= _beside_tables(runs["lowtide"], ("recommended", "smooth", "stock"))
        parts["kinds"] = tables.day_by_kind(runs["lowtide"])
    if "pictures" in runs:
        parts |= _beside_tables(runs["pictures"], ("stock",))
    if "frontier" in runs:
        parts["frontier"] = tables.frontier(runs["frontier"], FRONTIER_LOADS)
    for lines in parts.values():
        print("\n".join(lines), end="\n\n")
    if asked.write:
        _write(runs, parts, is_whole=asked.only not in ("lowtide", "pictures"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.live_traffic", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=1, help="and those that follow it")
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--write", action="store_true", help="into the pages of docs/")
    parser.add_argument("--jobs", type=int, default=2, help="processes at one time")
    parser.add_argument(
        "--only", choices=[*PARTS, RIVALS], help="with the scheduler class, or Lowtide without it"
    )
    parser.add_argument("--json", type=Path, help="every run, into this file")
    return parser.parse_args()


def _run_all(jobs: dict[str, list[Job]], processes: int) -> dict[str, list[Run]]:
    """Results in the order of the jobs; progress on standard error."""
    runs: dict[str, list[Run]] = {name: [{} for _ in these] for name, these in jobs.items()}
    total = sum(map(len, jobs.values()))
    began_s, reported_s = time.monotonic(), 0.0
    with ProcessPoolExecutor(processes) as pool:
        asked = {
            pool.submit(work, *values): (name, place)
            for name, these in jobs.items()
            for place, (work, values) in enumerate(these)
        }
        for count, future in enumerate(as_completed(asked), start=1):
            name, place = asked[future]
            runs[name][place] = future.result()
            if time.monotonic() - reported_s > 5 or count == total:
                reported_s = time.monotonic()
                print(f"{count} of {total} runs, {reported_s - began_s:.0f} s", file=sys.stderr)
    return runs


def _class_tables(runs: dict[str, list[Run]]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    if "class" in runs:
        curve = tables.over_tolerance(runs["class"], ("steady 10/s", "steady 25/s"), CLASS)
        parts |= {"class": tables.with_class(runs["class"], LOADS, CLASS), "tolerance": curve}
    if "tolerance" in runs:
        loads = ("steady 10/s", "steady 25/s")
        parts["choice"] = tables.over_tolerance(runs["tolerance"], loads, CLASS)
    if "class-day" in runs:
        parts["class-day"] = tables.with_class(runs["class-day"], LOADS, CLASS, LONG_ANSWERS)
    if "class-steps" in runs:
        parts["class-steps"] = tables.with_steps(
            runs["class-steps"], ("steady 10/s", "steady 25/s")
        )
    return parts


def _beside_tables(runs: list[Run], setups: tuple[str, ...]) -> dict[str, list[str]]:
    beside = {
        f"{load} {setup}": tables.beside_live(runs, load, setup)
        for setup in setups
        for load in LOADS
        if not load.startswith("long")
    }
    parts = {_marker(name): lines for name, lines in beside.items()}
    return parts | {"summary": tables.summary(runs, LOADS, setups)}


def _other_tables(runs: dict[str, list[Run]]) -> dict[str, list[str]]:
    return {
        "kinds": tables.day_by_kind(runs["beside"]),
        "races": tables.races(runs["races"]),
        "prefixes": tables.prefixes(runs["prefixes"]),
    }


def _marker(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def _write(runs: dict[str, list[Run]], parts: dict[str, list[str]], *, is_whole: bool) -> None:
    """`is_whole`: tables are written anew; else only the rows that were run."""
    if drawn := runs.get("beside") or runs.get("pictures"):
        _draw(drawn)
    for page in PAGES:
        text = page.read_text()
        for name, lines in parts.items():
            begin, end = f"<!-- made: {name} -->", f"<!-- end: {name} -->"
            if begin in text:
                head, _, rest = text.partition(begin)
                old, _, rest = rest.partition(end)
                rows = lines if is_whole else tables.merged(old.strip().splitlines(), lines)
                text = head + "\n".join([begin, *rows, end]) + rest
        page.write_text(text)


def _draw(runs: list[Run]) -> None:
    from bench.live_traffic import pictures

    PICTURES.mkdir(exist_ok=True)
    pictures.trade(runs, "steady 10/s", "stock", PICTURES / "trade.png")
    pictures.day(runs, PICTURES / "day.png")


if __name__ == "__main__":
    main()
