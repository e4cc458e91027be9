"""Does work spread? Four workers, eight replicas that all of them list, one PostgreSQL.

    python -m bench.bench_spread [--requests N]

Every process is real; the engines (25 to 75 ms a request, as many at once as the window) live here
and measure themselves, without sampling: how long each had nothing in flight, and how many calls on
average, while chunks waited in the queue. Then the same with a worker that is killed in the
middle, as information: its replicas stand idle until its lease is over. Prints one JSON line.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]
import httpx

from bench.backend import MODEL, Backend
from testkit.postgres import running_postgres

WORKERS: Final = 4
REPLICAS: Final = 8
WINDOW: Final = 4
DELAY_S: Final = 0.05
LEASE_TTL_S: Final = 10.0
SAMPLE_S: Final = 0.02
TIMEOUT_S: Final = 300.0
ENDPOINT: Final = "/v1/chat/completions"


@dataclass
class Meter:
    """What is in flight on one engine, and since when; seconds are those of the event loop."""

    in_flight: int = 0
    most: int = 0
    idle_s: float = 0.0
    call_s: float = 0.0
    at_s: float = field(default_factory=time.monotonic)
    first_idle_s: float | None = None
    """Idle before the first call since `restart`."""

    def move(self, step: int) -> None:
        self.settle()
        if self.first_idle_s is None:
            self.first_idle_s = self.idle_s
        self.in_flight += step
        self.most = max(self.most, self.in_flight)

    def settle(self) -> None:
        now_s = time.monotonic()
        self.idle_s += (now_s - self.at_s) * (self.in_flight == 0)
        self.call_s += (now_s - self.at_s) * self.in_flight
        self.at_s = now_s

    def restart(self) -> None:
        self.settle()
        self.idle_s = self.call_s = 0.0
        self.first_idle_s = None
        self.most = self.in_flight


class Metered(Backend):
    """One connection to an engine that is metered."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(DELAY_S)
        self._meter = meter
        self._answering: asyncio.TimerHandle | None = None

    def connection_lost(self, error: Exception | None) -> None:
        """A call that was aborted is computed no further."""
        del error
        if self._answering is not None:
            self._answering.cancel()
            self._done()

    def on_message_complete(self) -> None:
        self._meter.move(1)
        delay_s = DELAY_S * random.uniform(0.5, 1.5)  # answers of one length would march in step
        loop = asyncio.get_running_loop()
        self._answering = loop.call_later(delay_s, self._answer, self._wire)

    def _answer(self, wire: bytes) -> None:
        self._done()
        self._transport.write(wire)

    def _done(self) -> None:
        self._answering = None
        self._meter.move(-1)


@asynccontextmanager
async def engines() -> AsyncIterator[dict[str, Meter]]:
    """URL -> meter."""
    loop, servers, meters = asyncio.get_running_loop(), [], {}
    for _ in range(REPLICAS):
        meter = Meter()

        def connected(meter: Meter = meter) -> Metered:
            return Metered(meter)

        server = await loop.create_server(connected, "127.0.0.1", 0)
        servers.append(server)
        meters[f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"] = meter
    try:
        yield meters
    finally:
        for server in servers:
            server.close()


@asynccontextmanager
async def process(folder: Path, name: str, *arguments: str) -> AsyncIterator[tuple[int, Any]]:
    """A running `lowtide`: its pid, and the JSON line that it announced itself with."""
    command = [sys.executable, "-m", "lowtide", *arguments, "--json"]
    with (folder / f"{name}.log").open("w") as log:
        started = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=log
        )
        assert started.stdout is not None
        try:
            yield started.pid, json.loads(await started.stdout.readline())
        finally:
            if started.returncode is None:
                started.terminate()
            await started.wait()


def config(folder: Path, name: str, database_url: str, urls: list[str]) -> str:
    path = folder / f"{name}.toml"
    replicas = "".join(
        f'[[replica]]\nurl = "{url}"\nmodels = ["{MODEL}"]\nwindow = {WINDOW}\n' for url in urls
    )
    path.write_text(
        f'[server]\nport = 0\ndata_dir = "{folder / name}"\ndatabase_url = "{database_url}"\n'
        f'blob_url = "{(folder / "blobs").as_uri()}"\n'
        f"[dispatch]\nlease_ttl_s = {LEASE_TTL_S}\n"
        f"[limits]\nrequests_per_batch = 1000000\nenqueued_tokens_per_model = 1000000000\n"
        f"{replicas}"
    )
    return str(path)


async def settled(db: Any, shares: list[int]) -> None:
    """Wait until the workers own so many replicas each."""
    owned = "SELECT count(r.name) FROM workers w LEFT JOIN replicas r ON r.worker_id = w.id"
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            rows = await db.fetch(f"{owned} GROUP BY w.id")
            if sorted(row[0] for row in rows) == shares:
                return
            await asyncio.sleep(SAMPLE_S)


async def run_batch(
    http: httpx.AsyncClient,
    db: Any,
    meters: dict[str, Meter],
    requests: int,
    halfway: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One batch, metered while chunks wait; `halfway` is called at a third of it."""
    message = [{"role": "user", "content": "Write a line about the sea at night."}]
    body = {"model": MODEL, "messages": message, "max_tokens": 64}
    asked = ({"custom_id": f"r-{n}", "method": "POST", "url": ENDPOINT} for n in range(requests))
    content = "".join(json.dumps(line | {"body": body}) + "\n" for line in asked)
    form = {"file": ("in.jsonl", content.encode())}
    sent = await http.post("/files", data={"purpose": "batch"}, files=form)
    order = {"input_file_id": sent.json()["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
    batch = (await http.post("/batches", json=order)).json()

    waiting = "SELECT count(*) FROM chunks WHERE state = 'waiting'"
    async with asyncio.timeout(TIMEOUT_S):
        queued = 0
        while True:
            queued = await db.fetchval(waiting)
            if queued:
                break
            await asyncio.sleep(SAMPLE_S)
        began_s = time.monotonic()
        for meter in meters.values():
            meter.restart()
        while left := await db.fetchval(waiting):
            if left < 2 * queued / 3:
                halfway()
                halfway = _nothing
            await asyncio.sleep(SAMPLE_S)
        took_s = time.monotonic() - began_s
        for meter in meters.values():
            meter.settle()
        idle = sorted(round(meter.idle_s / took_s, 4) for meter in meters.values())
        used = sorted(round(meter.call_s / took_s / WINDOW, 3) for meter in meters.values())
        most = max(meter.most for meter in meters.values())
        first = sorted(round(meter.first_idle_s or 0.0, 2) for meter in meters.values())
        while batch["status"] != "completed":
            await asyncio.sleep(0.2)
            batch = (await http.get(f"/batches/{batch['id']}")).json()
    if batch["request_counts"] != {"total": requests, "completed": requests, "failed": 0}:
        raise RuntimeError(f"lines were lost: {batch}")
    return {
        "seconds_measured": round(took_s, 2),
        "idle_share": idle,
        "idle_before_first_call_s": first,
        "window_used": used,
        "most_in_flight": most,
    }


def _nothing() -> None:
    """At a third."""


async def measure(folder: Path, database_url: str, requests: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        meters = await stack.enter_async_context(engines())
        urls, pids = list(meters), []
        made = config(folder, "api", database_url, [])
        api = process(folder, "api", "serve", "--role", "api", "--config", made)
        _, reported = await stack.enter_async_context(api)
        for number in range(WORKERS):
            name = f"worker-{number}"
            made = config(folder, name, database_url, urls)
            worker = process(folder, name, "worker", "--config", made)
            pids.append((await stack.enter_async_context(worker))[0])
        pool = asyncpg.create_pool(database_url, min_size=2, max_size=2)
        db = await stack.enter_async_context(pool)
        base_url = f"{reported['address']}/openai/v1"
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=base_url, timeout=60))

        await settled(db, [REPLICAS // WORKERS] * WORKERS)
        spread = await run_batch(http, db, meters, requests)
        print(spread, file=sys.stderr)
        killed_at_s = 0.0

        def kill() -> None:
            nonlocal killed_at_s
            killed_at_s = time.monotonic()
            os.kill(pids[0], signal.SIGKILL)

        async def taken_over() -> float:
            await settled(db, [2, 3, 3])
            return round(time.monotonic() - killed_at_s, 2)

        killed = asyncio.create_task(run_batch(http, db, meters, requests, kill))
        over = asyncio.create_task(_after(lambda: killed_at_s > 0, taken_over))
        return {
            "requests": requests,
            "even": spread,
            "killed": await killed | {"taken_over_s": await over, "lease_s": LEASE_TTL_S},
        }


async def _after(fact: Callable[[], bool], then: Callable[[], Any]) -> Any:
    while True:
        if fact():
            return await then()
        await asyncio.sleep(SAMPLE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=20_000)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        postgres.sql("CREATE DATABASE spread")
        figures = asyncio.run(measure(Path(folder), postgres.url("spread"), requests))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
