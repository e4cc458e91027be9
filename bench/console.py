"""What the console's pages take, and what open pages take from a running batch.

    python -m bench.console [--lines N] [--batches N] [--pairs N] [--seconds S]

One real server with an instant backend. First a batch of a million lines: pages of its results at
the beginning, in the middle and at the end, and one line by its `custom_id`. Then batches in turns,
with and without twenty pages of the console open in a process of its own: the ratio of their rates.
Last the list with ten thousand batches, that have ended and that wait. Prints progress, then one
JSON line. Minutes.
"""

import argparse
import asyncio
import json
import math
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import httpx

from bench.backend import MODEL
from bench.processes import Server, backend, serving

CHAT: Final = "/v1/chat/completions"
WINDOW: Final = 64
LOOKS: Final = 40  # at each page, one after the other
WARM: Final = 3  # before these
PAGES: Final = 20  # open beside a batch: half of them the list, half the batch's own page
_T_95: Final = 2.2  # of Student's distribution, for a dozen pairs
POLL_S: Final = 0.05
RUN_TIMEOUT_S: Final = 600.0
SETTLES_S: Final = 5.0  # for one batch of one line to end, where an engine is there
SETTINGS: Final = (
    "[limits]\nrequests_per_batch = 10000000\nfile_bytes = 4000000000\n"
    "enqueued_tokens_per_model = 10000000000\nbatches_per_hour = 1000000\n"
    "unfinished_batches = 1000000\ncontrol_calls_per_minute = 10000000\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--requests", type=int, default=30_000, help="of each batch of a pair")
    asked = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, backend() as engine:
        replica = f'[[replica]]\nurl = "{engine}"\nmodels = ["{MODEL}"]\nwindow = {WINDOW}\n'
        with serving(Path(folder), SETTINGS + replica) as server:
            figures["lines"] = asked.lines
            figures["pages_ms"] = results_pages(server.address, Path(folder), asked.lines)
            figures["beside"] = beside(server, asked.pairs, asked.requests)
    figures["batches"] = asked.batches
    with tempfile.TemporaryDirectory() as folder, backend() as engine:
        figures["ended_ms"] = long_list(Path(folder), asked.batches, engine)
    with tempfile.TemporaryDirectory() as folder:
        # Nothing listens there: every batch waits, and the worker reads all of them for its plans.
        nobody = "http://127.0.0.1:9/v1"
        figures["waiting_ms"] = long_list(Path(folder), asked.batches, nobody)
    print(json.dumps(figures))


# ---- pages


def results_pages(address: str, folder: Path, lines: int) -> dict[str, Any]:
    """Times of pages of a large batch's results, by what they show."""
    with _client(address) as client:
        batch_id = _create(client, _upload(client, folder, lines))
        rate = lines / _wait(client, batch_id)
        tell(f"{lines:,} lines at {rate:,.0f} requests/s")
        page = f"/console/batches/{batch_id}"
        asked = {
            "the batch": page,
            "the first results": f"{page}/lines",
            "results in the middle": f"{page}/lines?first={lines // 2}",
            "the last results": f"{page}/lines?first={lines - 100}",
            "a custom_id": f"{page}/lines?custom_id=r-{lines * 2 // 3}",
        }
        return {what: _looks(client, path) for what, path in asked.items()}


def long_list(folder: Path, batches: int, engine: str) -> dict[str, Any]:
    """Times of the list, and of searches in it, with that many batches like one that ran there."""
    replica = f'[[replica]]\nurl = "{engine}"\nmodels = ["{MODEL}"]\nwindow = {WINDOW}\n'
    settings = SETTINGS + replica
    with serving(folder, settings) as server, _client(server.address) as client:
        first = _create(client, _upload(client, folder, 1), {"name": "Batch 0"})
        until = time.monotonic() + SETTLES_S
        while not _listed(client, "status=completed") and time.monotonic() < until:
            time.sleep(0.2)
    copy_batch(folder / "data" / "lowtide.db", first, batches - 1)
    with serving(folder, settings) as server, _client(server.address) as client:
        asked = {
            "the list": "/",
            "by state": "/?q=state:completed",
            "by another state": "/?q=state:running",
            "by text, found": f"/?q=Batch+{batches // 2}",
            "by text, not found": "/?q=nothing+is+called+so",
            "by model": f"/?q=model:{MODEL[:4]}",
            "by code of failure": "/?q=error:timeout",
        }
        return {what: _looks(client, path) for what, path in asked.items()}


def copy_batch(database: Path, batch_id: str, copies: int) -> None:
    """Puts further batches like that one into a store that no server has open. Its chunk is not
    copied: creating them one by one takes minutes and shows the same list.
    """
    with closing(sqlite3.connect(database)) as store, store:
        for table, key in (("batches", "id"), ("batch_models", "batch_id")):
            names = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
            rows = store.execute(f"SELECT * FROM {table} WHERE {key} = ?", (batch_id,)).fetchall()
            marks = ", ".join("?" * len(names))
            for row in rows:
                one = dict(zip(names, row, strict=True))
                store.executemany(
                    f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})",
                    ([*_copied(one, key, number).values()] for number in range(1, copies + 1)),
                )


def _copied(row: dict[str, Any], key: str, number: int) -> dict[str, Any]:
    copied = row | {key: f"batch_{number:024x}"}
    if "metadata" in row:
        copied["metadata"] = str(row["metadata"]).replace("Batch 0", f"Batch {number}")
    return copied


def _client(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=RUN_TIMEOUT_S)


def _looks(client: httpx.Client, path: str) -> dict[str, float]:
    times: list[float] = []
    size = 0
    for number in range(WARM + LOOKS):
        begun = time.perf_counter()
        answer = client.get(path, headers={"accept": "text/html"})
        took_ms = (time.perf_counter() - begun) * 1000
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}")
        if number >= WARM:
            times.append(took_ms)
            size = len(answer.content)
    times.sort()
    found = {"median": statistics.median(times), "p95": times[int(0.95 * LOOKS)], "kb": size / 1000}
    tell(f"{path}: {found}")
    return {name: round(value, 1) for name, value in found.items()}


# ---- open pages beside a batch


def beside(server: Server, pairs: int, requests: int) -> dict[str, Any]:
    """Batches in turns, with and without open pages: ratios of their rates and of the server's CPU
    seconds for a request, each with its 95 % interval.
    """
    ratios: list[float] = []
    cpu_ratios: list[float] = []
    with (
        _client(server.address) as client,
        tempfile.TemporaryDirectory() as folder,
        _pages(server.address) as pages,
    ):
        file_id = _upload(client, Path(folder), requests)
        for number in range(pairs + 1):
            rates: dict[bool, float] = {}
            cpu_s: dict[bool, float] = {}
            for is_watched in (False, True) if number % 2 else (True, False):
                before_s = _cpu_s(server)
                batch_id = _create(client, file_id)
                if is_watched:
                    half = ["/"] * (PAGES // 2)
                    pages.send([*half, *([f"/console/batches/{batch_id}"] * (PAGES - len(half)))])
                rates[is_watched] = requests / _wait(client, batch_id)
                cpu_s[is_watched] = _cpu_s(server) - before_s
                if is_watched:
                    pages.send([])
                    events = pages.recv()
                    if not events:
                        raise RuntimeError("no open page was told anything")
            if number:  # the first one warms
                ratios.append(rates[True] / rates[False])
                cpu_ratios.append(cpu_s[True] / cpu_s[False])
                tell(f"{rates[True]:,.0f} with, {rates[False]:,.0f} without")
    told = {"pairs": len(ratios), "requests": requests, "pages": PAGES}
    return told | {"rate": _interval(ratios), "cpu_of_a_request": _interval(cpu_ratios)}


def _interval(ratios: Sequence[float]) -> list[float]:
    """The geometric mean, and its 95 % interval."""
    logs = [math.log(each) for each in ratios]
    mean, half = statistics.mean(logs), math.inf
    if len(logs) > 1:
        half = _T_95 * statistics.stdev(logs) / math.sqrt(len(logs))
    return [round(math.exp(mean + each * half), 3) for each in (0, -1, 1)]


def _cpu_s(server: Server) -> float:
    """Seconds of processor time that the server has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _pages(address: str) -> Iterator[Connection]:
    """A process of its own that keeps the pages open that it is sent; sent none, it closes them
    and answers how many events came."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_keep_open, args=(address, there), daemon=True)
    process.start()
    try:
        yield here
    finally:
        here.send(None)
        process.join(10)


def _keep_open(address: str, asked: Connection) -> None:
    async def run() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=None) as client:
            tasks: list[asyncio.Task[int]] = []
            while (paths := await asyncio.to_thread(asked.recv)) is not None:
                if paths:
                    counts.clear()
                    tasks = [asyncio.ensure_future(_watch(client, path, counts)) for path in paths]
                    continue
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                asked.send(sum(counts.values()))

    counts: dict[str, int] = {}
    asyncio.run(run())


async def _watch(client: httpx.AsyncClient, path: str, counts: dict[str, int]) -> int:
    async with client.stream("GET", "/console/live", params={"of": path}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                counts[path] = counts.get(path, 0) + 1
    return 0


# ---- batches


def _upload(client: httpx.Client, folder: Path, lines: int) -> str:
    path = folder / "input.jsonl"
    with path.open("w") as stream:
        stream.writelines(_line(number) for number in range(lines))
    with path.open("rb") as content:
        form = {"purpose": "batch"}
        answer = client.post("/v1/files", data=form, files={"file": ("input.jsonl", content)})
    path.unlink()
    file_id: str = answer.json()["id"]
    return file_id


def _line(number: int) -> str:
    message = {"role": "user", "content": f"Write line {number} about the sea at night."}
    body = {"model": MODEL, "messages": [message], "max_tokens": 64}
    line = {"custom_id": f"r-{number}", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(line) + "\n"


def _create(client: httpx.Client, file_id: str, metadata: dict[str, str] | None = None) -> str:
    asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    answer = client.post("/v1/batches", json=asked | {"metadata": metadata or {}})
    if answer.status_code != 200:
        raise RuntimeError(answer.text)
    batch_id: str = answer.json()["id"]
    return batch_id


def _wait(client: httpx.Client, batch_id: str) -> float:
    """Seconds until the batch has ended."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < RUN_TIMEOUT_S:
        status = client.get(f"/v1/batches/{batch_id}").json()["status"]
        if status == "completed":
            return time.perf_counter() - begun
        if status in ("failed", "expired", "cancelled"):
            break
        time.sleep(POLL_S)
    raise RuntimeError(f"batch {batch_id} did not complete")


def _listed(client: httpx.Client, query: str) -> Sequence[Any]:
    found: Sequence[Any] = client.get(f"/v1/batches?{query}&limit=1").json()["data"]
    return found


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
