"""How many engines does one worker feed? Its rate over 1 to 32 engines, and what it takes.

    python -m bench.feed

One worker, one API process and PostgreSQL, with simulated engines that answer after a tenth of a
second and take 16 calls at a time: 160 calls a second each. For each number of engines one batch
that keeps them busy for some seconds. Told are the calls a second while work waits, beside what the
engines could answer, and the processor time of the worker for a thousand calls, which depends
little on what else runs on the machine. The last line of stdout is JSON.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.fleet.installation import Installation, database, engines, places
from bench.fleet.samples import answered, load
from bench.fleet.traffic import Submitter

COUNTS: Final = (1, 2, 4, 8, 16, 32)
WINDOW: Final = 16
DELAY_MS: Final = 100.0
BUSY_S: Final = 10.0
"""How long the engines would be busy with a batch, if the worker is fast enough."""
POLL_S: Final = 0.1
TIMEOUT_S: Final = 300.0
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / _TICKS_A_SECOND


async def measure(fleet: Installation, port: int, count: int) -> dict[str, Any]:
    """One batch on so many engines, seen from a tenth of its calls to nine tenths."""
    bound = count * WINDOW / (DELAY_MS / 1000)
    lines = int(bound * BUSY_S)
    worker = fleet.pid("worker-0")
    begun, _ = answered(port)
    marks: list[tuple[float, int, float]] = []

    def mark() -> None:
        calls = answered(port)[0] - begun
        if 0.1 * lines <= calls <= 0.9 * lines:
            marks.append((time.monotonic(), calls, cpu_s(worker)))

    async def sampling() -> None:
        while True:
            await asyncio.to_thread(mark)
            await asyncio.sleep(POLL_S)

    submitter = Submitter(lambda: fleet.addresses, lines, lines)
    task = asyncio.create_task(sampling())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await submitter.run()
    finally:
        task.cancel()
    found = submitter.found
    if found.lost or found.doubled or found.failed:
        raise RuntimeError(f"lines are wrong: {found}")
    (first_s, first, first_cpu), (last_s, last, last_cpu) = marks[0], marks[-1]
    return {
        "engines": count,
        "rate": round((last - first) / (last_s - first_s)),
        "bound": round(bound),
        "cpu_ms_a_call": round(1000 * (last_cpu - first_cpu) / (last - first), 3),
        "cores": round((last_cpu - first_cpu) / (last_s - first_s), 2),
        "load": round(load(), 1),
    }


async def measure_all(fleet: Installation, ports: list[int]) -> list[dict[str, Any]]:
    """Each number of engines."""
    found = []
    for count in COUNTS:
        fleet.put(ports[:count])
        await asyncio.sleep(3)  # the file is looked at twice a second, replicas are claimed then
        found.append(await measure(fleet, ports[0], count))
        print(found[-1], file=sys.stderr, flush=True)
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feed-")))
        ports = stack.enter_context(engines(max(COUNTS), DELAY_MS))
        server, name = stack.enter_context(database())
        where = places(server.url(name), (folder / "blobs").as_uri())
        fleet = Installation(folder, where, WINDOW, stack.enter_context(ExitStack()))
        fleet.put(ports[:1])
        fleet.start("api-0")
        fleet.start("worker-0")
        reported = asyncio.run(measure_all(fleet, ports))
    print(json.dumps(reported))


if __name__ == "__main__":
    main()
