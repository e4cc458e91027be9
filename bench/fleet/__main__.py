"""Millions of lines on engines that come and go, while a worker and an API process are killed.

    make bench-fleet FLEET_ARGS='--lines 10000000 --seconds 12000'
    python -m bench.fleet --lines 200000 --s3 moto

32 simulated engines, three API processes and four workers on PostgreSQL and S3. A part of the
engines is always away; each minute, that part comes and another one leaves, through the file
source. At a third of the lines, or of the time, a worker is killed, at a half an API process; both
are started again a minute later. Each line of each output is checked, and its batch deleted. The
rate is held against the bound in the same run: what the engines that were listed could have
answered, while work waited. After `--seconds` no further batch begins, and what is told is told of
those that did. Writes a page with plots to build/fleet.html; the last line of stdout is JSON. Exit
code 1 if a line was lost, came twice or failed.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.fleet.installation import Installation, bucket, database, engines, places
from bench.fleet.page import page
from bench.fleet.samples import Sample, answered, costs, disk_mb, load
from bench.fleet.traffic import Submitter
from testkit.postgres import PostgresServer

APIS: Final = 3
WORKERS: Final = 4
AWAY_SHARE: Final = 8
"""One engine of so many is away."""
POLL_S: Final = 2.0
BACK_S: Final = 60.0
TELL_EACH: Final = 15
"""Progress is told at each of so many looks."""
END_S: Final = 900.0
"""For the batches that are under way when the time is over."""


class Run:
    """One run: what happens beside the batches, and what is seen."""

    def __init__(
        self, fleet: Installation, ports: Sequence[int], db: tuple[PostgresServer, str], args: Any
    ) -> None:
        self.samples: list[Sample] = []
        self.outages: list[tuple[float, float, str]] = []
        """When a process was away, in seconds since the begin, and which."""
        self.most_in_flight = 0
        self.changes = 0
        self._fleet, self._ports, self._db, self._args = fleet, ports, db, args
        self._present: Sequence[int] = ()
        self._bound = 0.0
        self._began_s = self._changed_s = time.monotonic()
        self._sampled = 0
        self._disk_mb = 0.0

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began_s

    def change(self, turn: int) -> None:
        """Lets the engines of this turn be away, and all others be there."""
        groups = AWAY_SHARE
        self._count_bound()
        self._present = [p for n, p in enumerate(self._ports) if n % groups != turn % groups]
        self._fleet.put(self._present)

    def _count_bound(self) -> None:
        now_s = time.monotonic()
        each = self._args.window / (self._args.delay_ms / 1000)
        self._bound += len(self._present) * each * (now_s - self._changed_s)
        self._changed_s = now_s

    async def changes_go_on(self) -> None:
        """Engines come and leave."""
        while True:
            await asyncio.sleep(self._args.change_s)
            self.changes += 1
            self.change(self.changes)

    async def killing(self, submitter: Submitter) -> None:
        """A worker at a third of the lines or of the time, an API process at a half."""
        for share, name in ((1 / 3, "worker-1"), (1 / 2, "api-1")):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, share * self._args.seconds - self.now_s)):
                    await submitter.reached(share)
            self._fleet.kill(name)
            killed_s = self.now_s
            tell(f"{name} killed")
            await asyncio.sleep(min(BACK_S, self._args.change_s))
            await asyncio.to_thread(self._fleet.start, name)
            self.outages.append((killed_s, self.now_s, f"{name} was away"))
            tell(f"{name} back")

    async def sampling(self, submitter: Submitter) -> None:
        """A sample now and then."""
        while True:
            await asyncio.to_thread(self.sample, submitter)
            await asyncio.sleep(POLL_S)

    def sample(self, submitter: Submitter) -> None:
        self._count_bound()
        count, self.most_in_flight = answered(self._ports[0])
        if self._sampled % TELL_EACH == 0:
            self._disk_mb = disk_mb(self._db[0].folder, self._fleet.folder)
        self._sampled += 1
        claims, claims_ms, leases, database_ms = costs(*self._db)
        sample = Sample(
            at_s=self.now_s, answered=count, bound=self._bound, engines=len(self._present),
            completed=submitter.found.completed, claims=claims, claims_ms=claims_ms,
            leases=leases, database_ms=database_ms, load=load(), disk_mb=self._disk_mb,
            memory_mb=self._fleet.memory_mb(),
        )  # fmt: skip
        self.samples.append(sample)
        if len(self.samples) % TELL_EACH == 0:
            self._progress(self.samples[-TELL_EACH], sample)

    def _progress(self, first: Sample, last: Sample) -> None:
        rate = (last.completed - first.completed) / max(1e-9, last.at_s - first.at_s)
        left_s = (self._args.lines - last.completed) / rate if rate > 0 else float("inf")
        tell(
            f"{last.at_s:,.0f} s: {last.completed:,} of {self._args.lines:,} lines, {rate:,.0f} a"
            f" second, {left_s:,.0f} s to go; {last.disk_mb:,.0f} MB of disk,"
            f" {last.memory_mb:,.0f} MB of memory, load {last.load:.1f}"
        )


def tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


async def play(run: Run, submitter: Submitter, seconds: float) -> None:
    """Until all batches are checked that began in these seconds. Raises TimeoutError."""
    asyncio.get_running_loop().call_later(seconds, submitter.run_out)
    beside = [
        asyncio.create_task(work)
        for work in (run.changes_go_on(), run.killing(submitter), run.sampling(submitter))
    ]
    try:
        async with asyncio.timeout(seconds + END_S):
            batches = asyncio.create_task(submitter.run())
            await asyncio.wait([batches, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in beside:
                if task.done() and task.exception() is not None:
                    batches.cancel()
                    await task
            await batches
        run.sample(submitter)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def figures(run: Run, submitter: Submitter) -> dict[str, Any]:
    """What is told of the run; the rate of the time in which work waited."""
    found, samples = submitter.found, run.samples
    lines = found.submitted
    busy = [s for s in samples if 0.02 * lines <= s.completed <= 0.95 * lines]
    first, last = (busy[0], busy[-1]) if len(busy) > 1 else (samples[0], samples[-1])
    took_s = max(1e-9, last.at_s - first.at_s)
    thirds = [samples[len(samples) * n // 3] for n in range(3)] + [samples[-1]]
    claim_ms = [
        round((b.claims_ms - a.claims_ms) / max(1.0, b.claims - a.claims), 3)
        for a, b in pairwise(thirds)
    ]
    return {
        "lines": lines,
        "time_was_over": found.ran_out,
        "lost": found.lost,
        "doubled": found.doubled,
        "failed": found.failed,
        "seconds": round(samples[-1].at_s, 1),
        "rate": round((last.answered - first.answered) / took_s, 1),
        "bound": round((last.bound - first.bound) / took_s, 1),
        "of_bound": round((last.answered - first.answered) / (last.bound - first.bound), 3),
        "calls_beyond_lines": samples[-1].answered - lines,
        "most_in_flight_on_one": run.most_in_flight,
        "changes_of_engines": run.changes,
        "claim_ms_by_third": claim_ms,
        "disk_mb_most": round(max(s.disk_mb for s in samples)),
        "memory_mb_most": round(max(s.memory_mb for s in samples)),
        "submitter_tries_again": found.tries_again,
        "load": [round(min(s.load for s in samples), 1), round(max(s.load for s in samples), 1)],
    }


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_words(each) for each in value)
    return f"{value:,}"


def arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--batch-lines", type=int, default=50_000)
    parser.add_argument("--engines", type=int, default=32)
    parser.add_argument("--window", type=int, default=4)
    parser.add_argument("--delay-ms", type=float, default=100.0, help="of each answer")
    parser.add_argument("--change-s", type=float, default=60.0, help="between changes of engines")
    parser.add_argument("--s3", choices=("ceph", "moto", "folder"), default="ceph")
    parser.add_argument("--seconds", type=float, default=3600.0, help="then no batch begins")
    parser.add_argument("--logs", type=Path, help="folder to copy the logs of all processes to")
    parser.add_argument("--page", type=Path, default=Path("build/fleet.html"))
    return parser.parse_args()


def main() -> int:
    args = arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        ports = stack.enter_context(engines(args.engines, args.delay_ms))
        server, name = stack.enter_context(database())
        blob_url = stack.enter_context(bucket(args.s3, folder))
        where = places(server.url(name), blob_url)
        fleet = Installation(folder, where, args.window, stack.enter_context(ExitStack()))
        run = Run(fleet, ports, (server, name), args)
        run.change(0)
        for process in [f"api-{n}" for n in range(APIS)] + [f"worker-{n}" for n in range(WORKERS)]:
            fleet.start(process)
        submitter = Submitter(lambda: fleet.addresses, args.lines, args.batch_lines)
        asyncio.run(play(run, submitter, args.seconds))
        reported = figures(run, submitter)
        if args.logs is not None:
            args.logs.mkdir(parents=True, exist_ok=True)
            for log in folder.glob("*.log"):
                shutil.copy(log, args.logs)
    args.page.parent.mkdir(parents=True, exist_ok=True)
    title = f"A fleet run of {reported['lines']:,} lines"
    facts = {key.replace("_", " "): _words(value) for key, value in reported.items()}
    args.page.write_text(page(title, facts, run.samples, run.outages))
    print(json.dumps(reported))
    return int(bool(reported["lost"] or reported["doubled"] or reported["failed"]))


if __name__ == "__main__":
    sys.exit(main())
