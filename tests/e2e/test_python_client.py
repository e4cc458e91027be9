"""`lowtide.map` in a program of its own: Ctrl-C, twice at once, a model of its own."""

import asyncio
import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from command_line import Command, names_in, reached

import lowtide
from testkit.scripted_engine import Answer, ScriptedEngine, completion, reply

ROWS = 40
QUICK: Answer = (reply(completion("fine")),)
Engine = partial(ScriptedEngine, models=("m",))
PROGRAM = """
import json, sys, lowtide
from lowtide import limits
limits.DRAIN_S = 3600.0  # far longer than a test waits: a second Ctrl-C must end it
rows = [{"text": f"row {n}"} for n in range(int(sys.argv[1]))]
try:
    found = lowtide.map(rows, prompt="Say: {{ text }}", state_dir="runs", **json.loads(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
except lowtide.Error as error:
    sys.exit(error.code)
print(json.dumps(found))
"""


async def program(folder: Path, rows: int = ROWS, **arguments: Any) -> Command:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(rows), json.dumps(arguments),
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    return Command(process)


async def test_after_ctrl_c_the_same_call_goes_on_and_asks_no_row_twice(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Engine(*[QUICK] * 10, otherwise=(gate, *QUICK)) as engine:
        async with await program(tmp_path, url=engine.url, window=4) as first:
            await reached(engine, 11)
            first.send(signal.SIGINT)
            await first.said("Stopping")
            gate.set()
            code, _, reported = await first.ended()
        assert code == 130
        assert "The same call goes on from there." in reported
        assert len(names_in(tmp_path / "runs")) == 1

        code, out, reported = await (await program(tmp_path, url=engine.url)).ended()
        assert code == 0
        assert "Going on with an earlier run of this call" in reported
        assert "40 rows: 40 succeeded, none failed." in reported
        assert len(engine.requests) == ROWS
    assert [row["answer"] for row in json.loads(out)] == ["fine"] * ROWS
    assert names_in(tmp_path / "runs") == []


async def test_a_second_ctrl_c_ends_the_wait_and_not_the_program(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Engine(*[QUICK] * 10, otherwise=(gate, *QUICK)) as engine:
        async with await program(tmp_path, url=engine.url, window=2) as call:
            await reached(engine, 11)
            call.send(signal.SIGINT)
            await call.said("Stopping")
            call.send(signal.SIGINT)
            code, _, reported = await call.ended()
        assert code == 130  # the program's own exit, not one that was forced on it
        assert "The same call goes on from there." in reported
        gate.set()
        code, out, _ = await (await program(tmp_path, url=engine.url)).ended()
    assert code == 0
    assert len(json.loads(out)) == ROWS


async def test_a_model_of_one_s_own_answers_and_logging_stays_the_program_s(
    tmp_path: Path,
) -> None:
    import logging

    import structlog

    handlers, configured = list(logging.getLogger().handlers), structlog.get_config()
    rows = [{"text": "one"}, {"text": "two"}]
    both = await asyncio.gather(
        *(
            lowtide.amap(
                rows, prompt=prompt, model="random", params={"max_tokens": 4},
                state_dir=tmp_path, progress=False,
            )
            for prompt in ("Say: {{ text }}", "Sing: {{ text }}")
        )
    )  # fmt: skip
    assert [row["_error"] for rows in both for row in rows] == [None] * 4
    assert {row["_finish_reason"] for rows in both for row in rows} <= {"length", "stop"}
    assert logging.getLogger().handlers == handlers
    assert structlog.get_config() == configured


async def test_amap_that_is_cancelled_drains_and_the_same_call_goes_on(tmp_path: Path) -> None:
    gate = asyncio.Event()
    rows = [{"text": f"row {n}"} for n in range(ROWS)]
    async with Engine(*[QUICK] * 10, otherwise=(gate, *QUICK)) as engine:
        call = partial(
            lowtide.amap, rows, prompt="{{ text }}", url=engine.url, window=4,
            state_dir=tmp_path, progress=False,
        )  # fmt: skip
        task = asyncio.create_task(call())
        await reached(engine, 11)
        task.cancel()
        asyncio.get_running_loop().call_later(0.5, gate.set)
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        found = await call()
        assert len(found) == ROWS
        assert len(engine.requests) == ROWS
