"""One good tenant among ten hostile ones, on one real server: what the good one notices.

    python -m bench.hostile_tenants [--seconds 600] [--only NAME ...] [--write]

`make bench-tenants`. The good tenant has live calls, GETs and one batch after another; first alone
for a fifth of the time (ten seconds at least), then beside the ten of `bench.hostile_callers`. Its
calls begin at a fixed rate whether or not earlier ones ended, and each is timed from when it was
due. The engine takes a millisecond for each token asked for and any number of calls, so what is
measured is Lowtide. Server, engine, hostile and good callers are a process each, all on 127.0.0.1.
`--only` lets some of the ten loose, to see which one it is. `--write` puts the table into
bench/RESULTS.md.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from bench.backend import MODEL
from bench.hostile_callers import CHAT, RATES, line
from bench.processes import Server, backend, first_line, serving
from bench.sections import merged

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
HEADING: Final = "## One good tenant among ten hostile ones"
LIVE_PER_S: Final = 5.0
GETS_PER_S: Final = 5.0
LIVE_TOKENS: Final = 20
BATCH_LINES: Final = 500
ALONE_S_MIN: Final = 10.0
READY_S: Final = 60.0
KINDS: Final = ("live", "get")


@dataclass(slots=True)
class Seen:
    """What the good tenant noticed: seconds of each call, failures, and its batch's requests."""

    seconds: float
    live: list[float] = field(default_factory=list)
    get: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    requests_done: int = 0
    batches_done: int = 0

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "seconds": round(self.seconds, 1),
            "batch_requests_per_s": round(self.requests_done / self.seconds, 1),
            "batches": self.batches_done,
            "failed": self.failed,
        }
        for kind in KINDS:
            values = sorted(getattr(self, kind))
            found[f"{kind}_calls"] = len(values)
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                found[f"{kind}_{name}_ms"] = percentile_ms(values, share)
        return found


def percentile_ms(values: list[float], share: float) -> float | None:
    if not values:
        return None
    return round(1000 * values[min(len(values) - 1, int(share * len(values)))], 1)


class Good:
    """The good tenant."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._seen = Seen(0.0)

    async def work(self, seconds: float) -> Seen:
        self._seen = Seen(seconds)
        ends_s = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._at_rate("live", LIVE_PER_S, ends_s))
            group.create_task(self._at_rate("get", GETS_PER_S, ends_s))
            group.create_task(self._batches(ends_s))
        return self._seen

    async def _at_rate(self, kind: str, per_s: float, ends_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as group:
            while due < ends_s:
                await asyncio.sleep(due - loop.time())
                group.create_task(self._timed(kind, due))
                due += 1 / per_s

    async def _timed(self, kind: str, due: float) -> None:
        try:
            answer = await self._call(kind)
        except httpx.HTTPError as error:
            self._count(f"{kind} {type(error).__name__}")
            return
        if answer.is_success:
            getattr(self._seen, kind).append(asyncio.get_running_loop().time() - due)
        else:
            self._count(f"{kind} {answer.status_code}")

    def _count(self, what: str) -> None:
        self._seen.failed[what] = self._seen.failed.get(what, 0) + 1

    async def _call(self, kind: str) -> httpx.Response:
        if kind == "get":
            return await self._http.get("/v1/batches?limit=5")
        message = {"role": "user", "content": "Write one line about the sea."}
        body = {"model": MODEL, "messages": [message], "max_tokens": LIVE_TOKENS}
        return await self._http.post(CHAT, json=body)

    async def _batches(self, ends_s: float) -> None:
        """One batch after another. Of the last, what was done in time counts."""
        loop = asyncio.get_running_loop()
        while loop.time() < ends_s:
            batch = await self._new_batch()
            done = 0
            while loop.time() < ends_s and batch["status"] not in ("completed", "failed"):
                await asyncio.sleep(0.25)
                with_counts = await self._http.get(f"/v1/batches/{batch['id']}")
                batch = with_counts.raise_for_status().json()
                done = (batch.get("request_counts") or {}).get("completed", 0)
            self._seen.requests_done += done
            self._seen.batches_done += batch["status"] == "completed"
            if batch["status"] == "failed":
                raise RuntimeError(f"the good tenant's batch failed: {batch['errors']}")

    async def _new_batch(self) -> dict[str, Any]:
        one = line(MODEL, b',"max_tokens":%d' % LIVE_TOKENS)
        ids = (b'id":"%d"' % number for number in range(BATCH_LINES))
        form = {"file": ("good.jsonl", b"".join(one.replace(b'id":"1"', each) for each in ids))}
        sent = await self._http.post("/v1/files", data={"purpose": "batch"}, files=form)
        file_id = sent.raise_for_status().json()["id"]
        asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
        made = await self._http.post("/v1/batches", json=asked)
        return dict(made.raise_for_status().json())


# ---- the tenants --------------------------------------------------------------------------------


def admin_key(folder: Path) -> str:
    """The first key, made before the server starts."""
    config = folder / "lowtide.toml"
    config.write_text(f"[server]\ndata_dir = {json.dumps(str(folder / 'data'))}\n")
    command = ("keys", "create", "bench", "--scopes", "read,submit,admin", "--config", str(config))
    made = subprocess.run(
        [sys.executable, "-m", "lowtide", *command, "--json"], stdout=subprocess.PIPE, check=True
    )
    return str(json.loads(made.stdout)["key"])


def new_key(admin: httpx.Client, name: str) -> str:
    """Of an organization of its own, with the limits that everybody has by default."""

    def made(path: str, **fields: Any) -> dict[str, Any]:
        return dict(admin.post(f"/v1/admin/{path}", json=fields).raise_for_status().json())

    organization = made("organizations", name=name)["id"]
    project = made("projects", name=name, organization_id=organization)["id"]
    return str(made("keys", name=name, project_id=project, scopes=["read", "submit"])["key"])


@contextmanager
def hostile(address: str, keys: dict[str, str], seconds: float) -> Iterator[dict[str, Any]]:
    """The ten at work, in a process of their own; filled in at the end: what they were answered."""
    plan = {"address": address, "keys": keys, "model": MODEL, "seconds": seconds}
    found: dict[str, Any] = {}
    command = [sys.executable, "-m", "bench.hostile_callers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(plan).encode() + b"\n")
        process.stdin.flush()
        first_line(process)  # its own start is not what is measured
        try:
            yield found
        finally:
            try:
                said, _ = process.communicate(timeout=READY_S)  # closes its stdin, which ends it
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
        found.update(json.loads(said.splitlines()[-1]) if said.strip() else {})


async def measure(server: Server, good_key: str, keys: dict[str, str], seconds: float) -> Any:
    headers = {"authorization": f"Bearer {good_key}"}
    async with httpx.AsyncClient(
        base_url=server.address, headers=headers, trust_env=False, timeout=60
    ) as http:
        good = Good(http)
        await good.work(2.0)  # to warm up
        alone = await good.work(max(ALONE_S_MIN, seconds / 5))
        with hostile(server.address, keys, seconds + READY_S) as answered:
            beside = await good.work(seconds)
    return alone, beside, answered


def run(seconds: float, names: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, backend(ms_per_token=1.0) as url:
        folder = Path(name)
        admin_headers = {"authorization": f"Bearer {admin_key(folder)}"}
        settings = (
            f'[auth]\nmode = "keys"\n[[replica]]\nurl = "{url}"\nmodels = ["{MODEL}"]\n'
            "window = 64\n"
        )
        with serving(folder, settings) as server:
            with httpx.Client(
                base_url=server.address, headers=admin_headers, trust_env=False, timeout=60
            ) as admin:
                good_key, *rest = [new_key(admin, each) for each in ("good", *names)]
            keys = dict(zip(names, rest, strict=True))
            began = time.perf_counter()
            alone, beside, answered = asyncio.run(measure(server, good_key, keys, seconds))
            peak_mb = server.peak_memory_mb()
    return {
        "alone": alone.figures(),
        "beside": beside.figures(),
        "hostile": answered,
        "peak_memory_mb": round(peak_mb),
        "wall_s": round(time.perf_counter() - began, 1),
    }


# ---- the report ---------------------------------------------------------------------------------


def section(figures: dict[str, Any]) -> str:
    """For RESULTS.md."""
    alone, beside = figures["alone"], figures["beside"]
    rows = [
        ("live call, p50", "live_p50_ms", " ms"),
        ("live call, p99", "live_p99_ms", " ms"),
        ("GET, p50", "get_p50_ms", " ms"),
        ("GET, p99", "get_p99_ms", " ms"),
        ("its batches", "batch_requests_per_s", " requests/s"),
    ]
    lines = [
        HEADING,
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, `make bench-tenants`, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[1]:.1f}: {beside['seconds']:.0f} s beside ten tenants at the fixed "
        f"rates of bench/hostile_callers.py, after {alone['seconds']:.0f} s alone. "
        f"{LIVE_PER_S:.0f} live calls and {GETS_PER_S:.0f} GETs a second, batches of "
        f"{BATCH_LINES} lines, an engine that takes {LIVE_TOKENS} ms for each. "
        f"Server at most {figures['peak_memory_mb']} MB.",
        "",
        "| of the good tenant | alone | beside |",
        "|---|---|---|",
        *(f"| {name} | {alone[key]}{unit} | {beside[key]}{unit} |" for name, key, unit in rows),
        f"| calls that failed | {_counts(alone['failed'])} | {_counts(beside['failed'])} |",
        "",
        "| hostile tenant | calls a second, at most | at a time | answered |",
        "|---|---|---|---|",
        *(
            f"| {name} | {rate.per_s:g} | {rate.at_once} | "
            f"{_counts(figures['hostile'].get(name, {}))} |"
            for name, rate in RATES.items()
            if name in figures["hostile"]
        ),
        "",
    ]
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items())) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=600.0, help="beside the hostile ones")
    parser.add_argument("--only", nargs="+", choices=RATES, default=list(RATES), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    args = parser.parse_args()
    figures = run(args.seconds, args.only)
    print(section(figures))
    print(json.dumps(figures))
    if args.write:
        RESULTS.write_text(merged(RESULTS.read_text(), section(figures)))


if __name__ == "__main__":
    main()
