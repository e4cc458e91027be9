"""How many requests per second, and per CPU-second, the engine client does on its own.

    python -m bench.bench_http_client [--seconds 5] [--concurrency 64] [--loop uvloop|asyncio]

The backend runs in a child process; the CPU time reported is this process's alone. Prints one JSON
line.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from lowtide.core.faults.outcome import Reply
from lowtide.engines.http.client import HttpEngine

BODY = json.dumps(
    {
        "model": "bench-model",
        "messages": [{"role": "user", "content": "Write one line about the sea at night. " * 8}],
        "max_tokens": 64,
        "temperature": 0.2,
    }
).encode()
ATTEMPT_S = 600.0
WARM_UP_S = 0.5

Runner = Callable[[Coroutine[Any, Any, dict[str, Any]]], dict[str, Any]]
RUNNERS: dict[str, Runner] = {"uvloop": uvloop.run, "asyncio": asyncio.run}


async def measure(url: str, concurrency: int, seconds: float) -> dict[str, Any]:
    """Keep `concurrency` posts in flight for `seconds`; every answer must be a 200."""
    engine = HttpEngine(url)
    done = 0
    until = 0.0

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < until:
            attempt = await engine.post("/chat/completions", BODY, ATTEMPT_S)
            if not isinstance(attempt, Reply) or attempt.status != 200:
                raise RuntimeError(f"the backend did not answer: {attempt}")
            done += 1

    async def drive(span_s: float) -> tuple[int, float, float]:
        nonlocal done, until
        done = 0
        wall, cpu = time.perf_counter(), time.process_time()
        until = time.monotonic() + span_s
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(caller())
        return done, time.perf_counter() - wall, time.process_time() - cpu

    await drive(WARM_UP_S)
    count, wall_s, cpu_s = await drive(seconds)
    await engine.aclose()
    return {
        "requests": count,
        "requests_per_s": round(count / wall_s),
        "requests_per_cpu_s": round(count / cpu_s),
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--loop", choices=sorted(RUNNERS), default="uvloop")
    args = parser.parse_args()
    command = [sys.executable, "-m", "bench.backend", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as backend:
        assert backend.stdout is not None
        url = json.loads(backend.stdout.readline())["url"]
        figures = RUNNERS[args.loop](measure(url, args.concurrency, args.seconds))
        assert backend.stdin is not None
        backend.stdin.close()
    print(json.dumps({"loop": args.loop, "concurrency": args.concurrency} | figures))


if __name__ == "__main__":
    main()
