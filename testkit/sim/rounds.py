"""Many seeds: played one after another or by several processes, with progress, and a summary.

The order in which seeds come back is up to the machine; the summary does not depend on it.
"""

import gc
import multiprocessing
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from testkit.sim.duel import play_duel
from testkit.sim.fault_kinds import FaultKind
from testkit.sim.scenario import draw_scenario, steered
from testkit.sim.simulation import Played, play, play_world
from testkit.sim.stores import Stores, sim_folder

PROGRESS_S: Final = 5.0
_HOUR_S: Final = 3600.0
DUEL_EVERY: Final = 4
"""Seeds: each of these plays a duel as well, two small worlds in fair weather."""


class Summary(msgspec.Struct):
    """The results of a number of runs."""

    seeds: int = 0
    wall_s: float = 0.0
    virtual_s: float = 0.0
    steps: int = 0
    commits: int = 0
    batches: int = 0
    lines: int = 0
    deaths: set[str] = msgspec.field(default_factory=set)
    faults: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(FaultKind, 0))
    seeds_with: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(FaultKind, 0))
    """The number of seeds in which each kind of fault happened."""
    broken: list[int] = msgspec.field(default_factory=list)

    def add(self, run: Played) -> None:
        self.seeds += 1
        self.virtual_s += run.virtual_s
        self.steps += run.steps
        self.commits += run.commits
        self.batches += run.batches
        self.lines += run.lines
        self.deaths |= run.deaths
        for kind, times in run.faults.items():
            self.faults[kind] += times
            self.seeds_with[kind] += 1
        if run.broken is not None:
            self.broken = sorted([*self.broken, run.seed])

    def table(self) -> str:
        """The summary as a table for people."""
        places = Counter(site.partition("/")[0] for site in self.deaths)
        shares = ", ".join(f"{count} in {place}" for place, count in sorted(places.items()))
        rows = [
            ("seeds", f"{self.seeds:,} in {self.wall_s:.0f} s"),
            ("virtual hours", f"{self.virtual_s / _HOUR_S:,.0f}"),
            ("steps", f"{self.steps:,}"),
            ("batches", f"{self.batches:,}"),
            ("lines", f"{self.lines:,}"),
            ("commits checked", f"{self.commits:,}"),
            *((str(kind), f"{self._times(kind)}") for kind in FaultKind),
            ("awaits at which a process died", f"{len(self.deaths)} ({shares})"),
            ("broken", ", ".join(map(str, self.broken)) or "none"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {figure}" for name, figure in rows)

    def _times(self, kind: FaultKind) -> str:
        return f"{self.faults[kind]:>7,} in {self.seeds_with[kind]:,} seeds"


class Player:
    """One process that plays seeds."""

    def __init__(self, stores: Stores, *, verbose: bool, is_steered: bool = False) -> None:
        """`is_steered`: submitters steer their batches, and no duels are played."""
        self._stores = stores
        self._verbose = verbose
        self._is_steered = is_steered
        self._frozen = False

    def play(self, seed: int) -> Played:
        if self._is_steered:
            scenario = steered(draw_scenario(seed))
            return play_world(scenario, self._stores, verbose=self._verbose)
        run = play(seed, self._stores, verbose=self._verbose)
        if seed % DUEL_EVERY == 0 and run.broken is None:
            run = _both(run, play_duel(seed, self._stores, verbose=self._verbose))
        if not self._frozen:
            gc.freeze()  # modules and compiled statements: not to be looked through each time
            self._frozen = True
        return run if run.broken else msgspec.structs.replace(run, trace=[])


def _both(run: Played, duel: Played) -> Played:
    """The run, with what was broken and met in its duel."""
    return msgspec.structs.replace(
        run,
        broken=duel.broken,
        faults={
            kind: run.faults.get(kind, 0) + duel.faults.get(kind, 0)
            for kind in (*run.faults, *duel.faults)
        },
        trace=duel.trace if duel.broken else run.trace,
    )


_player: Player
"""The player of a child process."""


def _begin(folder: Path, verbose: bool, is_steered: bool) -> None:
    global _player
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its children
    stores = Stores(Path(tempfile.mkdtemp(dir=folder)))
    _player = Player(stores, verbose=verbose, is_steered=is_steered)


def _play(seed: int) -> Played:
    return _player.play(seed)


@contextmanager
def played(
    seeds: Sequence[int], *, jobs: int, verbose: bool, is_steered: bool = False
) -> Iterator[Iterator[Played]]:
    """The runs of these seeds, as they come; when left, what is not finished is given up."""
    with sim_folder() as folder:
        if jobs == 1:
            player = Player(Stores(folder), verbose=verbose, is_steered=is_steered)
            yield (player.play(seed) for seed in seeds)
        else:
            pools = multiprocessing.get_context("spawn")
            with pools.Pool(jobs, _begin, (folder, verbose, is_steered)) as pool:
                yield pool.imap_unordered(_play, seeds)


class RunProgress:
    """A line on stderr every few seconds, when there is something to wait for."""

    def __init__(self, seeds: int) -> None:
        self._seeds = seeds
        self._begun_s = self._said_s = time.perf_counter()

    @property
    def passed_s(self) -> float:
        return time.perf_counter() - self._begun_s

    def tell(self, so_far: Summary) -> None:
        """Prints the line now, if it is time to."""
        now_s = time.perf_counter()
        if now_s - self._said_s < PROGRESS_S:
            return
        self._said_s = now_s
        pace = so_far.seeds / self.passed_s
        left_s = (self._seeds - so_far.seeds) / pace
        print(
            f"{so_far.seeds} of {self._seeds} seeds, {pace:.1f} a second, {left_s:.0f} s to go,"
            f" {len(so_far.broken)} broken",
            file=sys.stderr,
            flush=True,
        )
