"""A batch beside live calls on a real engine: the embedded llama.cpp, in real time.

    python -m bench.live_traffic.real [--rate 2] [--seconds 30]

Live calls are streamed through the door by a Poisson process, first alone, then beside a batch
that does not run out. Engine, server and client share this machine, so read the ratios. The demo
model is half a megabyte: this shows that giving way works on a real engine, not what a GPU would
show. Prints a table and one JSON line.
"""

import argparse
import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from bench.processes import STOP_TIMEOUT_S, first_line
from lowtide.core.outcome import NoReply
from lowtide.engines.http_client import HttpEngine

LINES: Final = 20_000
MODEL: Final = "demo"
CALL_S: Final = 60.0


def body(prompt: str, tokens: int, **rest: Any) -> dict[str, Any]:
    message = {"role": "user", "content": prompt}
    return {"model": MODEL, "messages": [message], "max_tokens": tokens, **rest}


@contextmanager
def house(folder: Path) -> Iterator[str]:
    """`lowtide serve --model demo`; its address."""
    config = folder / "lowtide.toml"
    config.write_text(f'[server]\nport = 0\ndata_dir = "{folder / "data"}"\n')
    command = [sys.executable, "-m", "lowtide", "serve", "--config", str(config)]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(
            [*command, "--model", MODEL, "--json"], stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            yield str(first_line(process)["address"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)


async def live_call(door: HttpEngine, rng: random.Random) -> tuple[float, list[float]]:
    """Seconds to the first event, and the gaps between blocks after it."""
    asked = body("tell me of the sea " * rng.randint(4, 40), 32, stream=True)
    began = last = time.perf_counter()
    first, gaps = 0.0, []
    async with door.open_stream("/chat/completions", json.dumps(asked).encode(), CALL_S) as reply:
        if isinstance(reply, NoReply) or reply.status != 200:
            raise RuntimeError(f"no stream: {reply}")
        while block := await reply.read():
            if isinstance(block, NoReply):
                raise RuntimeError(f"the stream broke: {block}")
            now = time.perf_counter()
            if first:
                gaps.append(now - last)
            first, last = first or now - began, now
    return first, gaps


async def live_phase(door: HttpEngine, rate: float, seconds: float) -> dict[str, float]:
    """Poisson arrivals, whether or not earlier calls have ended."""
    rng = random.Random(7)
    began, due = time.perf_counter(), 0.0
    async with asyncio.TaskGroup() as group:
        calls = []
        while due < seconds:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            calls.append(group.create_task(live_call(door, rng)))
            due += rng.expovariate(rate)
    ttfts = sorted(call.result()[0] for call in calls)
    gaps = sorted(gap for call in calls for gap in call.result()[1])
    return {
        "calls": len(ttfts),
        "ttft_p50_ms": 1e3 * statistics.median(ttfts),
        "ttft_p99_ms": 1e3 * ttfts[int(0.99 * (len(ttfts) - 1))],
        "gap_p99_ms": 1e3 * gaps[int(0.99 * (len(gaps) - 1))],
    }


def start_batch(server: httpx.Client, folder: Path) -> str:
    lines = folder / "batch.jsonl"
    rng = random.Random(8)
    with lines.open("w") as file:
        for number in range(LINES):
            asked = body("count the waves " * rng.randint(10, 60), rng.randint(16, 128))
            file.write(json.dumps({"custom_id": f"r{number}", "body": asked}) + "\n")
    with lines.open("rb") as file:
        fields = {"purpose": "batch-api", "file_name": lines.name}
        uploaded = server.post("/v1/files/upload", files={"file": file}, data=fields).json()
    asked = {"input_file_id": uploaded["id"], "endpoint": "/v1/chat/completions"}
    made = server.post("/v1/batches", json=asked).json()
    return str(made["job"]["id"] if "job" in made else made["id"])


def completed(server: httpx.Client, batch_id: str) -> int:
    seen = server.get(f"/v1/batches/{batch_id}").json()
    counts = seen.get("request_counts") or {}
    return int(counts.get("completed") or round(LINES * float(seen.get("progress") or 0) / 100))


async def measure(address: str, folder: Path, rate: float, seconds: float) -> dict[str, Any]:
    door = HttpEngine(f"{address}/v1", connections_max=64)
    with httpx.Client(base_url=address, timeout=CALL_S) as server:
        await live_phase(door, rate, 3.0)
        alone = await live_phase(door, rate, seconds)
        batch_id = await asyncio.to_thread(start_batch, server, folder)
        while not completed(server, batch_id):  # noqa: ASYNC110 - nothing tells but asking
            await asyncio.sleep(0.2)
        began, before = time.perf_counter(), completed(server, batch_id)
        beside = await live_phase(door, rate, seconds)
        done = completed(server, batch_id) - before
        beside["batch_per_s"] = done / (time.perf_counter() - began)
        await asyncio.sleep(2.0)
        began, before = time.perf_counter(), completed(server, batch_id)
        await asyncio.sleep(seconds / 2)
        without = (completed(server, batch_id) - before) / (time.perf_counter() - began)
        await asyncio.to_thread(server.post, f"/v1/batches/{batch_id}/cancel")
    await door.aclose()
    return {"alone": alone, "beside": beside, "batch_alone_per_s": without}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=2.0, help="live calls a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each phase")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, house(Path(name)) as address:
        found = asyncio.run(measure(address, Path(name), asked.rate, asked.seconds))
    print("| live calls | TTFT p50 | TTFT p99 | gap p99 | batch requests/s |")
    print("|---|---|---|---|---|")
    for phase in ("alone", "beside"):
        told = found[phase]
        print(
            f"| {phase} | {told['ttft_p50_ms']:.0f} ms | {told['ttft_p99_ms']:.0f} ms |"
            f" {told['gap_p99_ms']:.0f} ms | {told.get('batch_per_s', 0):.1f} |"
        )
    print(f"| no live calls | | | | {found['batch_alone_per_s']:.1f} |")
    print(json.dumps({"bench": "live_real", **found}))


if __name__ == "__main__":
    main()
