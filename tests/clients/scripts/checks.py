"""What the scripts have in common: the input file, the checks, the waiting.

Runs with the client's own Python, so it imports nothing but the standard library. The engine says
back what it was asked, and refuses what begins with "refuse".
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

MODEL = "deepseek-ai/DeepSeek-V3"
CHAT = "/v1/chat/completions"
ADDRESS = os.environ["LOWTIDE_ADDRESS"]
WAIT_S = 60.0
POLL_S = 0.1

TEXTS = (
    "Explain quantum computing",
    "Zeilen mit é, 雪 and \u2028 a separator",
    "refuse not today",
    "wait 0.2 and be slow",
)
ANSWERS = {f"r{n}": f"echo: {t}" for n, t in enumerate(TEXTS, 1) if not t.startswith("refuse")}
REFUSED = {"r3"}
SLOW_TEXTS = ("quick", *(f"wait 40 {n}" for n in range(20)))

T = TypeVar("T")


def check(what: str, holds: object) -> None:
    """Count a fact, or end the script by it."""
    if not holds:
        print(f"FAILED: {what}", flush=True)
        raise SystemExit(1)
    print(f"ok: {what}", flush=True)


def until(ask: Callable[[], T], done: Callable[[T], bool]) -> T:
    """Poll as a user would, only faster."""
    deadline = time.monotonic() + WAIT_S
    while not done(seen := ask()):
        _in_time(seen, deadline)
        time.sleep(POLL_S)
    return seen


async def until_async(ask: Callable[[], Awaitable[T]], done: Callable[[T], bool]) -> T:
    """The same for an asynchronous client."""
    deadline = time.monotonic() + WAIT_S
    while True:
        seen = await ask()
        if done(seen):
            return seen
        _in_time(seen, deadline)
        await asyncio.sleep(POLL_S)


def _in_time(seen: object, deadline: float) -> None:
    if time.monotonic() > deadline:
        check(f"done within {WAIT_S:.0f} s: {seen!r}", False)


def refusal(call: Callable[[], object], kind: type[Exception], words: str = "") -> None:
    """The call is refused with this exception, and our words reach the user."""
    try:
        call()
    except kind as error:
        check(f"{kind.__name__} says {words!r} in {str(error)[:100]!r}", words in str(error))
    else:
        check(f"{kind.__name__} is raised", False)


def write_input(
    path: str, texts: tuple[str, ...] = TEXTS, *, together: bool = False, model: str = MODEL
) -> str:
    """A batch file with a line for each text: in the short form of Together, or OpenAI's."""
    with Path(path).open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts, 1):
            line: dict[str, Any] = {"custom_id": f"r{number}"}
            if not together:
                line |= {"method": "POST", "url": CHAT}
            line["body"] = {"model": model, "messages": [{"role": "user", "content": text}]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path


def lines(content: bytes | str) -> list[dict[str, Any]]:
    text = content if isinstance(content, str) else content.decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def check_results(output: bytes | str, errors: bytes | str) -> None:
    """Both files of a batch of TEXTS: each answer once, under its own id."""
    done = lines(output)
    answers = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"]
        for line in done
    }
    check("each answer is there, under its own id", answers == ANSWERS)
    check("and only once", len(done) == len(ANSWERS))
    check("with status 200", {line["response"]["status_code"] for line in done} == {200})
    failed = lines(errors)
    check("the refused line is in the error file", {f["custom_id"] for f in failed} == REFUSED)
    check("with the engine's words", "not today" in json.dumps(failed))
