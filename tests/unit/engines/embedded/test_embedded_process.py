"""One life of a child, with small Python programs in the place of llama.cpp."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowtide import limits
from lowtide.engines.embedded.bounded_log import BoundedLog
from lowtide.engines.embedded.child import POOL_MEAN, PORT_TAKEN
from lowtide.engines.embedded.process import CRASHED, SLOW, ChildSpec, run_child
from testkit.patience import PATIENCE_S

SERVE = """
import json, os, sys
print("warming up", file=sys.stderr, flush=True)
print(json.dumps({"event": "ready", "address": "x"}), flush=True)
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[BoundedLog]:
    log = BoundedLog(tmp_path / "engine.log")
    yield log
    log.close()


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_crash_after_service_says_how_long_it_served(log: BoundedLog) -> None:
    pids: list[int] = []
    dies = SERVE + "print('0.00.1 E ran out of luck', file=sys.stderr, flush=True); os._exit(7)"
    end = await run_child(python(dies), log, pids.append)
    assert end.code == CRASHED
    assert end.served_s is not None and end.served_s < 60
    assert "status 7" in end.reason and "ran out of luck" in end.reason
    assert len(pids) == 1


async def test_a_crash_before_service_is_never_ready(log: BoundedLog, tmp_path: Path) -> None:
    pids: list[int] = []
    source = "import os, sys; sys.stderr.write('bad luck'); sys.stderr.flush(); os.abort()"
    end = await run_child(python(source), log, pids.append)
    assert (end.code, end.served_s, pids) == (CRASHED, None, [])
    assert (tmp_path / "engine.log").read_text().startswith("bad luck")


async def test_a_reported_failure_keeps_its_code_and_the_reason_from_the_log(
    log: BoundedLog,
) -> None:
    source = """
import json, sys
print("0.00.1 E couldn't bind", file=sys.stderr, flush=True)
print(json.dumps({"event": "failed", "code": "port_taken"}), flush=True)
"""
    end = await run_child(python(source), log, lambda _: None)
    assert (end.code, end.reason, end.served_s) == (PORT_TAKEN, "couldn't bind", None)


async def test_a_child_that_is_not_ready_in_time_is_ended(
    log: BoundedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EMBEDDED_START_TIMEOUT_S", 0.2)
    end = await run_child(python("import time; time.sleep(600)"), log, lambda _: None)
    assert (end.code, end.served_s) == (SLOW, None)


async def test_a_program_that_does_not_exist_is_an_end_like_any_other(log: BoundedLog) -> None:
    end = await run_child(["/nowhere/llama"], log, lambda _: None)
    assert end.code == CRASHED
    assert "cannot start" in end.reason


@pytest.mark.parametrize(
    "hears", ["sys.stdin.read()", "__import__('time').sleep(600)"], ids=["polite", "deaf"]
)
async def test_cancelling_ends_the_child_whether_it_listens_or_not(
    log: BoundedLog, monkeypatch: pytest.MonkeyPatch, hears: str
) -> None:
    monkeypatch.setattr(limits, "EMBEDDED_STOP_S", 0.3)
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    life = asyncio.create_task(run_child(python(SERVE + hears), log, ready.set_result))
    pid = await asyncio.wait_for(ready, PATIENCE_S)
    assert is_running(pid)
    life.cancel()
    with pytest.raises(asyncio.CancelledError):
        await life
    assert not is_running(pid)


async def test_a_child_that_writes_much_is_never_held_up_by_its_log(log: BoundedLog) -> None:
    source = SERVE + "sys.stderr.write('x' * 3_000_000); sys.stderr.flush()"
    end = await asyncio.wait_for(run_child(python(source), log, lambda _: None), PATIENCE_S)
    assert "status 0" in end.reason


def test_the_command_names_everything_that_the_child_needs() -> None:
    spec = ChildSpec(Path("m.gguf"), "org/m", 4, context=512, threads=1, pooling=POOL_MEAN)
    command = spec.command(port=4711)
    assert command[:3] == [sys.executable, "-m", "lowtide.engines.embedded.child"]
    assert command[command.index("--port") + 1] == "4711"
    assert command[command.index("--pooling") + 1] == POOL_MEAN
    assert command[command.index("--parent") + 1] == str(os.getpid())
