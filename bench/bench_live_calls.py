"""What Lowtide adds to a call: through Lowtide beside straight to the engine.

    python -m bench.bench_live_calls [--rate 200] [--seconds 5] [--rounds 5] [--delay-ms 0]

Open loop: calls begin by a Poisson process (seeded), whether or not earlier ones ended, `rate` a
second through Lowtide and as many straight to the backend, in turn, so that both meet the same
moments of a noisy machine. Backend, server and client are a process each. A stream is timed to its
first event, which is what its user waits for, and is read to its end. The figures are medians over
the rounds, the best and the worst round beside them: other work on the machine comes in bursts, and
a 99th percentile is made of bursts. Prints one JSON line.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.backend import MODEL
from bench.processes import backend, lowtide
from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.engines.http.client import HttpEngine

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
    direct: HttpEngine, proxied: HttpEngine, *, stream: bool, rate: float, seconds: float
) -> tuple[list[float], list[float]]:
    """Latencies straight to the backend and through Lowtide."""
    body, draw = body_of(stream), random.Random(7)
    found: tuple[list[float], list[float]] = ([], [])

    async def call(which: int) -> None:
        found[which].append(await timed((direct, proxied)[which], body, stream))

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


def percentiles(direct: list[float], proxied: list[float]) -> dict[str, tuple[float, float]]:
    """Milliseconds, direct and through Lowtide."""
    return {
        name: (_percentile(direct, share), _percentile(proxied, share))
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    }


def _percentile(values: list[float], share: float) -> float:
    return 1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summary(rounds: list[dict[str, tuple[float, float]]]) -> dict[str, Any]:
    """`added` is the difference of the percentiles, round by round: median, best, worst."""
    figures: dict[str, Any] = {}
    for name in rounds[0]:
        pairs = [each[name] for each in rounds]
        added = sorted(proxied - direct for direct, proxied in pairs)
        figures[name] = {
            "direct_ms": round(statistics.median(direct for direct, _ in pairs), 3),
            "through_ms": round(statistics.median(proxied for _, proxied in pairs), 3),
            "added_ms": round(statistics.median(added), 3),
            "best_ms": round(added[0], 3),
            "worst_ms": round(added[-1], 3),
        }
    return figures


async def measure(
    url: str, address: str, rate: float, seconds: float, rounds: int
) -> dict[str, Any]:
    direct, proxied = HttpEngine(url), HttpEngine(f"{address}/v1")
    found: dict[str, list[dict[str, tuple[float, float]]]] = {"whole": [], "stream": []}
    for number in range(rounds + 1):
        for name, stream in (("whole", False), ("stream", True)):
            span = seconds if number else WARM_UP_S
            latencies = await drive(direct, proxied, stream=stream, rate=rate, seconds=span)
            if number:
                found[name].append(percentiles(*latencies))
    await direct.aclose()
    await proxied.aclose()
    return {name: summary(each) for name, each in found.items()}


def run(rate: float, seconds: float, rounds: int, delay_ms: float) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as folder,
        backend(delay_ms) as url,
        lowtide(Path(folder), url, WINDOW) as server,
    ):
        work = measure(url, server.address, rate, seconds, rounds)
        figures: dict[str, Any] = uvloop.run(work)
    return {"rate_per_s": rate, "delay_ms": delay_ms, "rounds": rounds} | figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="of the backend")
    args = parser.parse_args()
    print(json.dumps(run(args.rate, args.seconds, args.rounds, args.delay_ms)))


if __name__ == "__main__":
    main()
