"""Requests per second from the creation of a batch to its finished output file.

    python -m bench.bench_end_to_end [--quick]

Runs the real server (`lowtide serve`: API, worker, SQLite with synchronous=FULL, fsynced
segments) and the backend, each in a process of its own on this machine, and in the same run the
same HTTP client in a bare loop against the same backend: what this machine can do when nothing is
kept. With a backend that takes 50 ms the yardstick is window / delay. Prints progress, then one
JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import uvloop

from bench.backend import MODEL
from bench.bench_http_client import measure
from bench.processes import backend, lowtide

ENDPOINT: Final = "/v1/chat/completions"
WINDOW: Final = 64
POLL_S: Final = 0.05  # each poll costs the server about 2 ms; SDKs poll every few seconds
RUN_TIMEOUT_S: Final = 300.0


def run_batch(folder: Path, requests: int, delay_ms: float) -> dict[str, Any]:
    """One batch through a fresh server; every result is checked, in order, before it counts."""
    with backend(delay_ms) as url, lowtide(folder, url, WINDOW) as server:
        idle_mb = server.peak_memory_mb()
        with httpx.Client(base_url=f"{server.address}/openai/v1", timeout=60) as client:
            path = folder / "input.jsonl"
            path.write_text("".join(_lines(requests)))
            with path.open("rb") as stream:
                sent = client.post("/files", data={"purpose": "batch"}, files={"file": stream})
            begun = time.perf_counter()
            asked = {"input_file_id": sent.json()["id"], "endpoint": ENDPOINT}
            batch = client.post("/batches", json=asked | {"completion_window": "24h"}).json()
            batch = _wait(client, batch["id"])
            seconds = time.perf_counter() - begun
            _check(client, batch, requests)
        return {
            "requests": requests,
            "delay_ms": delay_ms,
            "seconds": round(seconds, 3),
            "requests_per_s": round(requests / seconds),
            "peak_memory_mb": round(server.peak_memory_mb(), 1),
            "idle_memory_mb": round(idle_mb, 1),
        }


def bare_loop(seconds: float, delay_ms: float = 0.0) -> int:
    """Requests per second of the engine client alone, same concurrency, same backend."""
    with backend(delay_ms) as url:
        figures: dict[str, Any] = uvloop.run(measure(url, WINDOW, seconds))
    return int(figures["requests_per_s"])


def _lines(requests: int) -> Iterator[str]:
    for number in range(requests):
        message = {"role": "user", "content": f"Write line {number} about the sea at night."}
        body = {"model": MODEL, "messages": [message], "max_tokens": 64}
        line = {"custom_id": f"r-{number}", "method": "POST", "url": ENDPOINT, "body": body}
        yield json.dumps(line) + "\n"


def _wait(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    until = time.monotonic() + RUN_TIMEOUT_S
    while time.monotonic() < until:
        batch: dict[str, Any] = client.get(f"/batches/{batch_id}").json()
        if batch["status"] in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(POLL_S)
    raise RuntimeError(f"batch {batch_id} did not end within {RUN_TIMEOUT_S} s")


def _check(client: httpx.Client, batch: dict[str, Any], requests: int) -> None:
    """Each request once, in input order; anything else makes the figure worthless."""
    output = client.get(f"/files/{batch['output_file_id']}/content")
    found = [json.loads(line)["custom_id"] for line in output.iter_lines()]
    if found != [f"r-{number}" for number in range(requests)]:
        raise RuntimeError(f"the output of {batch['id']} is not the input, answered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one small run of each kind")
    quick = parser.parse_args().quick
    sizes = (1_000,) if quick else (5_000, 50_000, 5_000, 50_000, 5_000)
    runs = []
    for size in sizes:
        bare = bare_loop(1.0 if quick else 3.0)
        with tempfile.TemporaryDirectory() as folder:
            run = run_batch(Path(folder), size, 0.0)
        run |= {"bare_loop_per_s": bare, "ratio": round(run["requests_per_s"] / bare, 3)}
        runs.append(run)
        print(run, file=sys.stderr)
    slow_size, delay_ms = (1_000 if quick else 20_000), 50.0
    with tempfile.TemporaryDirectory() as folder:
        slow = run_batch(Path(folder), slow_size, delay_ms)
    ideal = WINDOW / (delay_ms / 1000)
    slow |= {
        "ideal_per_s": ideal,
        "share_of_ideal": round(slow["requests_per_s"] / ideal, 4),
        "bare_share": round(bare_loop(3.0, delay_ms) / ideal, 4),
    }
    print(slow, file=sys.stderr)
    print(json.dumps({"instant": runs, "delayed": slow}))


if __name__ == "__main__":
    main()
