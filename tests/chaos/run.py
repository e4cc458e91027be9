"""Real faults on real processes.

    python tests/chaos/run.py --rounds 200 --seed 1
    python tests/chaos/run.py --only fleet --seed 1 --first 17 --rounds 1      (one round again)

Houses of real processes, over SQLite and over PostgreSQL with a bucket, run batches while the
server, the API, workers, engines and PostgreSQL are killed or stopped at random moments; then hosts
in network namespaces whose links are cut, slow or one-way; then disks that are full or read-only,
and too few file descriptors; then engines whose key is refused, whose gateway is away, that answer
one call at a time, and the like, and lines that fail wherever they go. After each round every line
must be there once, no good one among the errors, and every pico-dollar accounted for. Progress goes
to stderr, the tables to stdout. Exit code 1 if a round failed.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import disks
import field
import links
from figures import reported, table
from installations import Env, fleet_house, sqlite_house
from mounts import NotPossible
from rounds import Plague, Round, play

PARTS = ("sqlite", "fleet", "net", "disk", "field")
SCENARIOS = {
    "net": links.SCENARIOS,
    "disk": tuple(disks.SCENARIOS),
    "field": tuple(field.SCENARIOS),
}
SIZES = (500, 1200)
"""Lines of a batch in a scenario: it must not be over before its condition is."""
NO_MARKS: Mapping[str, float] = {}
ROUNDS_A_SCENARIO = 50
"""Of the rounds asked for: so many kills for one turn of each scenario."""
KILLED = {"sqlite": sqlite_house, "fleet": fleet_house}
Wanted = Mapping[str, Sequence[str]]
"""Parts, each with the scenarios that were named; none: all."""
GIVEN_UP = 3
"""Rounds of a node that may fail before the rest of them is left out: its state is in doubt."""


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


async def killed(part: str, seed: int, numbers: Iterable[int], folder: Path) -> list[Round]:
    """Rounds of kills and stops in one node, which lives through all of them."""
    rounds: list[Round] = []
    async with KILLED[part](folder) as env:
        for number in numbers:
            played = await play(env, number, Random(f"{seed}/{part}/{number}"))
            rounds.append(played)
            report(played, f"--only {part} --seed {seed} --first {number} --rounds 1")
            if sum(bool(each.verdict.wrong) for each in rounds) == GIVEN_UP:
                say(f"{part}: given up")
                break
    return rounds


def report(played: Round, replay: str) -> None:
    say(reported(played))
    for words in (*played.verdict.wrong[:10], *played.verdict.late):
        say(f"    {words[:2000]}")
    if not played.verdict.good:
        say(f"    again: python tests/chaos/run.py {replay}")


async def on_disks(
    seed: int, numbers: Iterable[int], names: Sequence[str], folder: Path
) -> list[Round]:
    """Each scenario in a fresh node, as often as there are numbers."""
    rounds: list[Round] = []
    for name, number in product(names, numbers):
        place = folder / f"{name}-{number}"
        place.mkdir()
        try:
            async with disks.SCENARIOS[name](place) as (env, plague):
                rounds.append(await _scenario("disk", name, env, plague, seed, number))
        except NotPossible as missing:
            say(f"disk: {name} is left out: {missing}")
    return rounds


async def on_links(
    seed: int, numbers: Iterable[int], names: Sequence[str], folder: Path
) -> list[Round]:
    """Each scenario as often as there are numbers, all in one node of many hosts."""
    rounds: list[Round] = []
    try:
        async with links.net_house(folder) as (env, switch):
            for name, number in product(names, numbers):
                plague = links.plague_of(name, switch)
                rounds.append(await _scenario("net", name, env, plague, seed, number))
    except NotPossible as missing:
        say(f"net is left out: {missing}")
    return rounds


async def in_the_field(
    seed: int, numbers: Iterable[int], names: Sequence[str], folder: Path
) -> list[Round]:
    """Each scenario as often as there are numbers, all in one node over SQLite."""
    rounds: list[Round] = []
    async with sqlite_house(folder, by_name=True) as env:
        for name, number in product(names, numbers):
            plague, marks = field.plague_of(name), field.SCENARIOS[name].marks
            rounds.append(await _scenario("field", name, env, plague, seed, number, marks))
    return rounds


async def _scenario(
    part: str,
    name: str,
    env: Env,
    plague: Plague,
    seed: int,
    number: int,
    marks: Mapping[str, float] = NO_MARKS,
) -> Round:
    env.name = f"{part}:{name}"
    random = Random(f"{seed}/{name}/{number}")
    played = await play(env, number, random, plague, SIZES, marks)
    report(played, f"--only {env.name} --seed {seed} --first {number} --rounds 1")
    return played


async def campaign(wanted: Wanted, seed: int, first: int, count: int, folder: Path) -> bool:
    """Whether all is well."""
    nodes = [part for part in wanted if part in KILLED]
    rounds: list[Round] = []
    for place, part in enumerate(nodes):
        share = count // len(nodes) + (place < count % len(nodes))
        rounds += await killed(part, seed, range(first, first + share), folder / part)
    for part, play_all in (("net", on_links), ("disk", on_disks), ("field", in_the_field)):
        if part in wanted:
            turns = range(first, first + max(1, count // ROUNDS_A_SCENARIO))
            names = wanted[part] or SCENARIOS[part]
            rounds += await play_all(seed, turns, names, folder / part)
    if not rounds:
        say("nothing was played")
        return False
    print(table(rounds))
    return all(each.verdict.good for each in rounds)


async def ended_by_signals(body: Coroutine[Any, Any, bool]) -> bool:
    """Run `body`; a signal cancels it, so that nothing of what it started stays behind."""
    running = asyncio.ensure_future(body)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    return await running


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="of kills, over both nodes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="number of the first round")
    parser.add_argument("--only", default=",".join(PARTS), help=",".join(PARTS))
    parser.add_argument("--keep", action="store_true", help="keep the folder of data and logs")
    given = parser.parse_args()
    parts: dict[str, list[str]] = {}
    for word in given.only.split(","):
        part, _, scenario = word.partition(":")
        parts.setdefault(part, []).extend([scenario] if scenario else [])
    if unknown := parts.keys() - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}, not {', '.join(unknown)}")
    folder = Path(tempfile.mkdtemp(prefix="lowtide-chaos-"))
    for part in parts:
        (folder / part).mkdir()
    begun, good = time.monotonic(), False
    try:
        good = asyncio.run(
            ended_by_signals(campaign(parts, given.seed, given.first, given.rounds, folder))
        )
    except asyncio.CancelledError:
        say("told to stop: what was started has been ended")
    finally:
        if good and not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"data and logs: {folder}")
    say(f"{'All is well' if good else 'FAILED'} after {time.monotonic() - begun:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
