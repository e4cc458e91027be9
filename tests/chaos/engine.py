"""An engine as a process of its own: `python engine.py --port P --calls FILE`.

It answers each chat completion after a moment, with the prompt said back and a usage that follows
from the prompt. Each call is appended to FILE the instant it has come in, as the monotonic clock of
the machine and the prompt, in one write: what a killed engine had been asked is known all the same.

While the file of `--condition` is there, every call gets the answer that it holds instead: a key
that is refused, a gateway whose engine is away; or it has one answer made at a time, and others
wait for their turn or are refused. And some prompts are of a kind of their own: those that end with
` fails` always draw 500, those that end with ` long` take seconds, and are cut off while the
condition says so. None of these calls is written down: nothing was computed.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from testkit.scripted_engine import (
    Answer,
    Cut,
    ScriptedEngine,
    SeenRequest,
    completion,
    reply,
)

FAILS: Final = " fails"
LONG: Final = " long"
LONG_S: Final = 8.0


def usage_of(text: str) -> dict[str, Any]:
    """Nearly different for each prompt, so that one answer billed for another shows."""
    number = sum(text.encode())
    given, made = 20 + number % 37, 3 + number % 11
    return {
        "prompt_tokens": given,
        "prompt_tokens_details": {"cached_tokens": given // 3},
        "completion_tokens": made,
        "total_tokens": given + made,
    }


def answer_of(text: str) -> Mapping[str, Any]:
    return completion(f"re: {text}") | {"usage": usage_of(text)}


class CountedEngine(ScriptedEngine):
    """Listens on a port that is given, and writes down what it is asked."""

    def __init__(
        self, host: str, port: int, calls: Path, delay_s: float, condition: Path | None = None
    ) -> None:
        super().__init__(host=host)
        self._condition = condition
        self._port = port
        self._delay_s = delay_s
        self._free_at_s = 0.0
        """When a serial engine has answered all that it took."""
        self._calls = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def next_answer(self, request: SeenRequest) -> Answer:
        condition = self._present_condition()
        if "status" in condition:
            kind = {"Content-Type": condition["type"]}
            return (reply(condition["body"].encode(), condition["status"], kind),)
        if request.method == "GET":
            return (reply({"object": "list", "data": [{"id": "m", "object": "model"}]}),)
        asked = json.loads(request.body)
        text = asked["messages"][-1]["content"]
        if text.endswith(FAILS):
            return (self._delay_s, reply({"error": {"message": "internal error"}}, 500))
        if text.endswith(LONG):
            cut_s = condition.get("cut_after_s")
            return (cut_s, Cut.RESET) if cut_s else (LONG_S, reply(answer_of(text)))
        if "max_tokens" in asked:  # a trial: no line of a job has that field
            return (self._delay_s, reply(answer_of(text)))
        delay_s = self._turn_s(condition, time.monotonic())
        if delay_s is None:
            return (reply({"error": {"message": "server busy, please try again"}}, 503),)
        os.write(self._calls, f"{time.monotonic():.6f} {text}\n".encode())
        return (delay_s, reply(answer_of(text)))

    def _turn_s(self, condition: Mapping[str, Any], now_s: float) -> float | None:
        """After how long a call of this moment is answered; None if another one is before it, and
        the engine has no queue.
        """
        serial_s = condition.get("serial_s")
        if serial_s is None:
            return self._delay_s
        if condition["busy"] == "refuse" and self._free_at_s > now_s:
            return None
        self._free_at_s = max(self._free_at_s, now_s) + serial_s
        return self._free_at_s - now_s

    def _present_condition(self) -> dict[str, Any]:
        if self._condition is None or not self._condition.exists():
            return {}
        return dict(json.loads(self._condition.read_text()))


async def serve(engine: CountedEngine) -> None:
    async with engine:
        print(json.dumps({"address": engine.url}), flush=True)
        await asyncio.get_running_loop().create_future()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--calls", type=Path, required=True)
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--condition", type=Path)
    given = parser.parse_args()
    engine = CountedEngine(given.host, given.port, given.calls, given.delay, given.condition)
    asyncio.run(serve(engine))


if __name__ == "__main__":
    main()
