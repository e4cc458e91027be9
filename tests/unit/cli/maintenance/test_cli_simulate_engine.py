"""`lowtide simulate-engine`: from the prompt to a request answered, and a clean end."""

import asyncio
import json
import signal
import sys
from typing import get_args

import pytest
from prompt import Run

from lowtide.cli.maintenance import simulate_engine
from lowtide.core.faults.outcome import Reply
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engines.http.client import HttpEngine
from testkit.patience import PATIENCE_S

READY_S = PATIENCE_S


def test_the_command_offers_every_profile() -> None:
    assert get_args(simulate_engine.Profile) == tuple(PROFILES)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_it_says_where_it_listens_answers_and_stops_on_a_signal(stop: signal.Signals) -> None:
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lowtide", "simulate-engine", "--json", "--model", "m",
        "--time-scale", "20", "--max-num-seqs", "8", "--fault", "noise=0.03",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert command.stdout is not None
    try:
        async with asyncio.timeout(READY_S):
            ready = json.loads(await command.stdout.readline())
            assert ready["model"] == "m"
            engine = HttpEngine(ready["url"])
            body = b'{"model":"m","prompt":"low tide","max_tokens":40}'
            answer = await engine.post("/completions", body, READY_S)
            assert isinstance(answer, Reply)
            assert json.loads(answer.body)["usage"]["completion_tokens"] == 40
            long = b'{"model":"m","prompt":"low tide","max_tokens":100000}'
            open_call = asyncio.create_task(engine.post("/completions", long, READY_S))
            while json.loads(await load(engine))["server_load"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            command.send_signal(stop)  # a long answer does not hold it up
            _, stderr = await command.communicate()
            await open_call
            await engine.aclose()
    finally:
        if command.returncode is None:
            command.kill()
    assert command.returncode == 0
    assert b"steps" in stderr
    assert b"Traceback" not in stderr


async def load(engine: HttpEngine) -> bytes:
    root = HttpEngine(engine.url.removesuffix("/v1"))
    answer = await root.get("/load", READY_S)
    await root.aclose()
    assert isinstance(answer, Reply)
    return answer.body


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fault", "flood@3"], "is no fault"),
        (["--max-num-seqs", "100", "--max-num-batched-tokens", "50"], "max_num_seqs"),
        (["--profile", "h900"], "h900"),
    ],
)
def test_options_that_cannot_work_are_named(
    run_main: Run, arguments: list[str], words: str
) -> None:
    outcome = run_main("simulate-engine", *arguments)
    assert outcome.code == 2
    assert words in outcome.err
