"""One running server, something switched on and off in turns, and what that takes from it.

Called by `bench.console_cost`. A pair is a stretch of time with and one without, next to each other
in the same process and the same batch; the order is with, without, without, with, so that a steady
drift of the machine falls out. Two figures for each pair: requests a second, and the server's own
processor seconds for a request, which other programs on the machine hardly move.
"""

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

SETTLES_S: Final = 0.6  # after a switch, before a stretch is measured
_ORDER: Final = (True, False, False, True)


class Stretch(NamedTuple):
    """What one stretch of time came to."""

    requests: int
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_of_a_request_s(self) -> float:
        return self.cpu_s / self.requests


class Pair(NamedTuple):
    """Two stretches next to each other."""

    on: Stretch
    off: Stretch


def pairs(
    switch: Callable[[bool], None],
    count: Callable[[], int],
    pid: int,
    *,
    stretch_s: float,
    seconds: float,
    has_ended: Callable[[], bool],
) -> list[Pair]:
    """Measures pairs until `seconds` are over or the work has ended. `count`: requests so far;
    `pid`: the process whose processor time counts. A block that the work did not outlast is left
    out.
    """
    measured: list[Pair] = []
    until = time.monotonic() + seconds
    while time.monotonic() + len(_ORDER) * (stretch_s + SETTLES_S) < until:
        block: list[Stretch] = []
        for is_on in _ORDER:
            switch(is_on)
            time.sleep(SETTLES_S)
            block.append(_stretch(count, pid, stretch_s))
        if has_ended():
            break
        measured += [Pair(block[0], block[1]), Pair(block[3], block[2])]
        tell(" ".join(f"{each.on.rate / each.off.rate:.3f}" for each in measured[-2:]))
    switch(False)
    return measured


def _stretch(count: Callable[[], int], pid: int, seconds: float) -> Stretch:
    begun, requests, cpu = time.perf_counter(), count(), cpu_s(pid)
    time.sleep(seconds)
    took, cpu = time.perf_counter() - begun, cpu_s(pid) - cpu
    return Stretch(count() - requests, took, cpu)


def summary(measured: Sequence[Pair]) -> dict[str, Any]:
    """The ratios with over without, each as its mean and 95 % interval. Raises RuntimeError where
    there is no pair.
    """
    if not measured:
        raise RuntimeError("the work ended before the first pairs: give it more lines")
    return {
        "pairs": len(measured),
        "requests_per_s": round(statistics.mean(each.off.rate for each in measured)),
        "rate": interval([each.on.rate / each.off.rate for each in measured]),
        "cpu_us_of_a_request": round(
            1e6 * statistics.mean(each.off.cpu_of_a_request_s for each in measured), 1
        ),
        "cpu": interval(
            [each.on.cpu_of_a_request_s / each.off.cpu_of_a_request_s for each in measured]
        ),
    }


def interval(ratios: Sequence[float]) -> list[float]:
    """The geometric mean of ratios, and its 95 % interval by Student's distribution."""
    logs = [math.log(each) for each in ratios]
    mean, half = statistics.mean(logs), math.inf
    if len(logs) > 1:
        half = _t_95(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return [round(math.exp(mean + each * half), 4) for each in (0, -1, 1)]


def _t_95(freedom: int) -> float:
    """The 97.5th percentile of Student's distribution, to a percent from five degrees of freedom
    on (Cornish and Fisher's series)."""
    return 1.96 + 2.372 / freedom + 2.823 / freedom**2


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used, all threads together."""
    return _cpu_s(_stat(Path(f"/proc/{pid}")))


def group_cpu_s(group: int) -> float:
    """The same of all processes of a group, as they are now."""
    seconds = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # one that has ended meanwhile
            stat = _stat(folder)
            seconds += _cpu_s(stat) if int(stat[2]) == group else 0.0
    return seconds


def _stat(folder: Path) -> list[str]:
    """Fields of proc(5) from the process's state on."""
    return (folder / "stat").read_text().rpartition(") ")[2].split()


def _cpu_s(stat: list[str]) -> float:
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
