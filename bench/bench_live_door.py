"""What the interactive door adds to a call: through Lowtide beside straight to the engine.

    python -m bench.bench_live_door [--rate 200] [--seconds 15] [--delay-ms 0]

Open loop: calls begin by a Poisson process (seeded), whether or not earlier ones ended, `rate` a
second through the door and as many straight to the backend, in turn, so that both meet the same
moments of a noisy machine. Backend, server and client are a process each. A stream is timed to its
first event, which is what its user waits for, and is read to its end. Prints one JSON line.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.backend import MODEL
from bench.processes import backend, lowtide
from lowtide.core.outcome import NoReply, Reply
from lowtide.engines.http_client import HttpEngine

CALL_S: Final = 60.0
WARM_UP_S: Final = 2.0
WINDOW: Final = 64
CHAT: Final = "/chat/completions"


def body_of(stream: bool) -> bytes:
    message = {"role": "user", "content": "Write one line about the sea at night. " * 8}
    fields = {"model": MODEL, "messages": [message], "max_tokens": 64, "stream": stream}
    return json.dumps(fields, separators=(",", ":")).encode()


async def timed(engine: HttpEngine, body: bytes, stream: bool) -> float:
    """Seconds to the whole answer, or to the first event of a stream."""
    began = time.perf_counter()
    if not stream:
        attempt = await engine.post(CHAT, body, CALL_S)
        if not isinstance(attempt, Reply) or attempt.status != 200:
            raise RuntimeError(f"no answer: {attempt}")
        return time.perf_counter() - began
    async with engine.open_stream(CHAT, body, CALL_S) as reply:
        if isinstance(reply, NoReply) or reply.status != 200:
            raise RuntimeError(f"no stream: {reply}")
        block = await reply.read()
        first_s = time.perf_counter() - began
        last = block
        while block:
            if isinstance(block, NoReply):
                raise RuntimeError(f"the stream broke: {block}")
            last, block = block, await reply.read()
        if not isinstance(last, bytes) or not last.endswith(b"data: [DONE]\n\n"):
            raise RuntimeError("the stream had no end")
    return first_s


async def drive(
    direct: HttpEngine, door: HttpEngine, *, stream: bool, rate: float, seconds: float
) -> tuple[list[float], list[float]]:
    """Latencies straight to the backend and through the door."""
    body, draw = body_of(stream), random.Random(7)
    found: tuple[list[float], list[float]] = ([], [])

    async def call(which: int) -> None:
        found[which].append(await timed((direct, door)[which], body, stream))

    loop = asyncio.get_running_loop()
    began = loop.time()
    due, count = 0.0, 0
    async with asyncio.TaskGroup() as group:
        while due < seconds:
            await asyncio.sleep(began + due - loop.time())
            group.create_task(call(count % 2))
            count += 1
            due += draw.expovariate(2 * rate)
    return found


def summary(direct: list[float], door: list[float]) -> dict[str, Any]:
    """Milliseconds; `added` is the difference of the percentiles."""
    figures: dict[str, Any] = {"calls": len(door)}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        straight, through = _percentile(direct, share), _percentile(door, share)
        figures[name] = {
            "direct_ms": round(1000 * straight, 3),
            "door_ms": round(1000 * through, 3),
            "added_ms": round(1000 * (through - straight), 3),
        }
    return figures


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measure(url: str, address: str, rate: float, seconds: float) -> dict[str, Any]:
    direct, door = HttpEngine(url), HttpEngine(f"{address}/v1")
    figures: dict[str, Any] = {}
    for name, stream in (("whole", False), ("stream", True)):
        await drive(direct, door, stream=stream, rate=rate, seconds=WARM_UP_S)
        found = await drive(direct, door, stream=stream, rate=rate, seconds=seconds)
        figures[name] = summary(*found)
    await direct.aclose()
    await door.aclose()
    return figures


def run(rate: float, seconds: float, delay_ms: float) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as folder,
        backend(delay_ms) as url,
        lowtide(Path(folder), url, WINDOW) as server,
    ):
        figures: dict[str, Any] = uvloop.run(measure(url, server.address, rate, seconds))
    return {"rate_per_s": rate, "delay_ms": delay_ms} | figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="of the backend")
    args = parser.parse_args()
    print(json.dumps(run(args.rate, args.seconds, args.delay_ms)))


if __name__ == "__main__":
    main()
