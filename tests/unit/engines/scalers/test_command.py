"""Engines of this machine: when they fall, when Lowtide falls, and when they are stopped."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lowtide import limits
from lowtide.core.replicas.scaler_asks import ScalerStatus
from lowtide.engines.scalers.command import Commands, CommandScaler
from lowtide.engines.scalers.engine_log import EngineLog
from lowtide.engines.scalers.process_slot import ProcessSlot
from lowtide.ports.scalers import ScalerError
from testkit.patience import PATIENCE_S

ECHO_ENV = (
    'env | grep -c "^LOWTIDE_SECRET" ; echo "$LOWTIDE_MODEL $LOWTIDE_REPLICA"; exec sleep 600'
)


class Box:
    """A folder, and commands that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots = folder / "slots"

    def scaler(self, script: str, **more: Any) -> CommandScaler:
        commands = Commands(start=("sh", "-c", script), model="m", **{"stop_s": 5.0} | more)
        environ = {**os.environ, "LOWTIDE_SECRET": "s", "BOX": str(self.folder)}
        return CommandScaler(commands, self.slots, lambda n: self.folder / f"{n}.log", environ)

    def pid(self, replica: int) -> int | None:
        return ProcessSlot(self.slots / f"{replica}.slot", replica).state().pid

    def log(self, replica: int) -> str:
        return (self.folder / f"{replica}.log").read_text()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    found = Box(tmp_path)
    yield found
    for path in tmp_path.glob("slots/*.slot"):
        ended(ProcessSlot(path, 0))


def ended(slot: ProcessSlot) -> None:
    """Ends what runs there, once its process has written its number."""
    until_s = time.monotonic() + PATIENCE_S
    while slot.state().condition == "running" and not slot.state().is_detached:
        assert time.monotonic() < until_s, "an engine is left behind"
        slot.signal(signal.SIGKILL)
        time.sleep(0.005)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if fact():
                return
            await asyncio.sleep(0.005)


async def read_until(scaler: CommandScaler, fact: Callable[[ScalerStatus], bool]) -> ScalerStatus:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            status = await scaler.read()
            if fact(status):
                return status
            await asyncio.sleep(0.005)


async def test_a_command_knows_its_replica_and_none_of_the_secrets(box: Box) -> None:
    scaler = box.scaler(ECHO_ENV)
    await scaler.ask(2)
    for replica in range(2):
        await until(lambda n=replica: box.log(n).split() == ["0", "m", str(n)])  # type: ignore[misc]
    await scaler.ask(0)


async def test_one_that_ends_by_itself_is_told_once_with_its_last_words(box: Box) -> None:
    scaler = box.scaler("echo loading; echo out of memory >&2; exit 3")
    await scaler.ask(1)
    status = await read_until(scaler, lambda status: bool(status.error))
    assert status.target == 0
    assert status.error.startswith("replica 0 has ended by itself with status 3: out of memory")
    assert str(box.folder / "0.log") in status.error
    assert (await scaler.read()).error == ""


async def test_a_program_that_is_not_there_is_told(box: Box) -> None:
    commands = Commands(start=("no-such-engine", "serve"))
    scaler = CommandScaler(commands, box.slots, lambda n: box.folder / f"{n}.log")
    with pytest.raises(ScalerError, match="no-such-engine: no such program"):
        await scaler.check()
    await scaler.ask(1)
    status = await read_until(scaler, lambda status: bool(status.error))
    assert "status 127" in status.error
    assert "not found" in status.error


async def test_the_end_is_told_with_its_status_though_the_lock_is_free_before(box: Box) -> None:
    gate = box.folder / "gate"
    os.mkfifo(gate)
    scaler = box.scaler(f"exec 9>&-; read go < {gate}; exit 3")
    await scaler.ask(1)
    slot = ProcessSlot(box.slots / "0.slot", 0)
    await until(lambda: slot.state().condition == "ended")
    assert (await scaler.read()).error == ""
    await asyncio.to_thread(gate.write_text, "go\n")
    status = await read_until(scaler, lambda status: bool(status.error))
    assert "with status 3" in status.error


async def test_a_slot_knows_the_status_of_its_process_until_the_next_start(box: Box) -> None:
    box.slots.mkdir()
    slot = ProcessSlot(box.slots / "0.slot", 0)
    log_fd = os.open(os.devnull, os.O_WRONLY)
    try:
        assert slot.start(("sh", "-c", "exit 3"), os.environ, log_fd, detaches=False)
        await until(lambda: slot.reap() is not None)
        assert (slot.reap(), slot.is_child_alive) == (3, False)
        assert slot.start(("sleep", "600"), os.environ, log_fd, detaches=False)
    finally:
        os.close(log_fd)
    assert (slot.reap(), slot.is_child_alive) == (None, True)
    await until(lambda: slot.state().pid is not None)
    slot.signal(signal.SIGKILL)
    await until(lambda: slot.reap() is not None)
    assert slot.reap() == -signal.SIGKILL


async def test_what_runs_is_stopped_from_the_top_as_a_group(box: Box) -> None:
    scaler = box.scaler("sleep 600 & echo $!; wait")
    await scaler.ask(2)
    await until(lambda: all(box.log(n).strip() for n in range(2)))
    kept = box.pid(0)
    await scaler.ask(1)
    assert (box.pid(0), (await scaler.read()).running) == (kept, 1)
    await scaler.ask(0)
    for replica in range(2):  # the child holds the slot, too
        assert ProcessSlot(box.slots / f"{replica}.slot", replica).state().condition == "empty"


async def test_one_that_is_stopped_as_it_starts_is_waited_for_and_ended(box: Box) -> None:
    scaler = box.scaler("exec sleep 600", stop_s=600.0)
    for _ in range(3):
        async with asyncio.timeout(PATIENCE_S):
            await scaler.ask(1)
            await scaler.ask(0)
        assert await scaler.read() == ScalerStatus(target=0, running=0)


async def test_one_that_takes_no_notice_is_killed(box: Box) -> None:
    scaler = box.scaler('trap "" TERM; echo up; while true; do sleep 0.05; done', stop_s=0.1)
    await scaler.ask(1)
    await until(lambda: "up" in box.log(0))
    await scaler.ask(0)
    assert (await scaler.read()) == ScalerStatus(target=0, running=0)


async def test_what_a_killed_lowtide_has_started_is_found_and_not_doubled(box: Box) -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from lowtide.engines.scalers.command import Commands, CommandScaler\n"
        "folder = Path(sys.argv[1])\n"
        "start = ('sh', '-c', 'echo up; exec sleep 600')\n"
        "scaler = CommandScaler(Commands(start=start), folder / 'slots',"
        " lambda n: folder / f'{n}.log')\n"
        "asyncio.run(scaler.ask(1))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", program, str(box.folder)]
    ended = await asyncio.to_thread(subprocess.run, command, timeout=PATIENCE_S, check=False)
    assert ended.returncode == -signal.SIGKILL
    scaler = box.scaler("echo second; exec sleep 600")
    assert await scaler.read() == ScalerStatus(target=1, running=1)
    await until(lambda: box.pid(0) is not None)
    await scaler.ask(1)
    await until(lambda: "up" in box.log(0))
    assert "second" not in box.log(0)
    await scaler.ask(0)
    assert await scaler.read() == ScalerStatus(target=0, running=0)


async def test_a_start_command_that_leaves_an_engine_behind_has_its_stop_command(box: Box) -> None:
    start = "setsid sleep 600 > /dev/null 2>&1 9>&- < /dev/null & echo $! > $BOX/engine; echo left"
    stop = 'kill $(cat $BOX/engine); echo "stopped $LOWTIDE_REPLICA"'
    scaler = box.scaler(start, stop=("sh", "-c", stop))
    await scaler.ask(1)
    slot = ProcessSlot(box.slots / "0.slot", 0)
    await until(lambda: slot.state().is_detached)
    assert await box.scaler(start, stop=("true",)).read() == ScalerStatus(target=1, running=1)
    await scaler.ask(1)
    assert box.log(0).split() == ["left"]
    await scaler.ask(0)
    assert box.log(0).split() == ["left", "stopped", "0"]
    assert (await scaler.read()).target == 0


async def test_a_stop_command_that_fails_leaves_it_running_and_says_so(box: Box) -> None:
    scaler = box.scaler("true", stop=("sh", "-c", "echo no daemon; exit 4"))
    await scaler.ask(1)
    slot = ProcessSlot(box.slots / "0.slot", 0)
    await until(lambda: slot.state().is_detached)
    with pytest.raises(ScalerError, match="ended with status 4: no daemon"):
        await scaler.ask(0)
    assert (await scaler.read()).target == 1
    slow = box.scaler("true", stop=("sleep", "600"), stop_s=0.05)
    with pytest.raises(ScalerError, match=r"longer than 0.05 s"):
        await slow.ask(0)


async def test_what_a_detached_engine_left_behind_ends_with_the_machine(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = box.scaler("true", stop=("true",))
    await scaler.ask(1)
    slot = ProcessSlot(box.slots / "0.slot", 0)
    await until(lambda: slot.state().is_detached)
    monkeypatch.setattr("lowtide.engines.scalers.process_slot._boot", lambda: "another")
    assert (await scaler.read()).target == 0


def test_a_slot_that_is_held_is_not_started_again(box: Box) -> None:
    box.slots.mkdir()
    slot = ProcessSlot(box.slots / "0.slot", 0)
    log = os.open(box.folder / "log", os.O_WRONLY | os.O_CREAT)
    try:
        assert slot.start(("sleep", "600"), os.environ, log, detaches=False)
        assert not slot.start(("sleep", "600"), os.environ, log, detaches=False)
        assert not ProcessSlot(slot.path, 0).start(("true",), os.environ, log, detaches=False)
    finally:
        os.close(log)
    slot.clear()
    assert slot.state().condition == "running", "what is held is not cleared"


def test_a_number_that_another_process_got_is_never_signalled(box: Box) -> None:
    box.slots.mkdir()
    slot = ProcessSlot(box.slots / "0.slot", 0)
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        slot.path.write_text(f"{bystander.pid}\n")
        slot.signal(signal.SIGKILL)
        assert slot.state().condition == "ended"
        assert bystander.poll() is None
    finally:
        with suppress(ProcessLookupError):
            bystander.kill()
        bystander.wait()


def test_a_log_is_cut_while_its_engine_writes(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SCALER_LOG_BYTES_MAX", 200)
    log = EngineLog(box.folder / "logs" / "0.log")
    fd = log.open()
    try:
        for n in range(30):
            os.write(fd, f"line number {n}\n".encode())
            log.keep_short()
    finally:
        os.close(fd)
    kept = sorted((box.folder / "logs").iterdir())
    assert [path.name for path in kept] == ["0.log", "0.log.1"]
    assert sum(path.stat().st_size for path in kept) <= 230
    assert log.last_line() == "line number 29"
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept)
