"""One life of the embedded engine's child process, from start to end, as one call.

Called by `EmbeddedEngine`, which decides what follows. Holds the other ends of child.py's three
pipes. Invariant: when `run_child` returns or is cancelled, the process is gone and everything it
said is in the log.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from lowtide import limits
from lowtide.engines.embedded import child as child
from lowtide.engines.embedded.bounded_log import BoundedLog

CRASHED: Final = "engine_crashed"
SLOW: Final = "engine_start_timeout"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What the child serves, and with how much. `context` is tokens per slot."""

    model_path: Path
    model_id: str
    slots: int
    context: int
    threads: int
    pooling: str | None  # one of embedded_child.POOLINGS; None serves no embeddings
    api_key: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables for what the child must not be given on its command line, which
        every user can read.
        """
        return {} if self.api_key is None else {child.KEY_VARIABLE: self.api_key}

    def command(self, port: int) -> list[str]:
        """The command line of a child that serves this on `port`."""
        command = [sys.executable, "-m", child.__name__]
        command += ["--parent", str(os.getpid()), "--port", str(port)]
        command += ["--model", str(self.model_path), "--model-id", self.model_id]
        command += ["--slots", str(self.slots), "--context", str(self.context)]
        command += ["--threads", str(self.threads)]
        if self.pooling is not None:
            command += ["--pooling", self.pooling]
        return command


@dataclass(frozen=True, slots=True)
class ChildExit:
    """How one life of the child ended. `served_s` is None when it never came to answer."""

    code: str
    reason: str
    served_s: float | None


async def run_child(
    command: Sequence[str],
    log: BoundedLog,
    on_ready: Callable[[int], None],
    environment: Mapping[str, str] = MappingProxyType({}),
) -> ChildExit:
    """Starts `command`, with `environment` beside this process's own variables, calls
    `on_ready(pid)` once it serves, returns when it has ended.

    Cancelling this ends the child. Nothing is raised for what the child or the system does.
    """
    log.forget()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Without backtraces: a crash would otherwise start a debugger.
            env={**os.environ, "GGML_NO_BACKTRACE": "1", **environment},
            start_new_session=True,  # Ctrl-C is for the parent alone
        )
    except OSError as exc:  # no process or file handle left: may pass
        return ChildExit(CRASHED, f"cannot start a process: {exc.strerror}", None)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_keep_log(process, log))
            watch = tasks.create_task(_watch(process, on_ready))
    finally:
        await _stop(process)
    code, status, served_s = watch.result()
    return ChildExit(code, _reason(code, status, log.complaint), served_s)


async def _watch(
    process: asyncio.subprocess.Process, on_ready: Callable[[int], None]
) -> tuple[str, int, float | None]:
    """Waits for the report, then for the end: (code, exit status, seconds of service)."""
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(limits.EMBEDDED_START_TIMEOUT_S):
            report = await _report(process)
    except TimeoutError:
        process.kill()
        return SLOW, await process.wait(), None
    if report.get("event") != child.READY:
        return report.get("code", CRASHED), await process.wait(), None
    served_from = clock()
    on_ready(process.pid)
    return CRASHED, await process.wait(), clock() - served_from


async def _report(process: asyncio.subprocess.Process) -> dict[str, str]:
    """The child's one line; empty when it ended without a word."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    report: dict[str, str] = json.loads(line) if line.endswith(b"\n") else {}
    return report


async def _keep_log(process: asyncio.subprocess.Process, log: BoundedLog) -> None:
    assert process.stderr is not None
    while block := await process.stderr.read(64 * limits.KIB):
        log.write(block)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ends the input, which asks the child to leave; sends SIGKILL if it does not react (a
    model still loading).
    """
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    leaving = asyncio.ensure_future(process.wait())
    # asyncio.timeout() of Python before 3.11.3 raises no TimeoutError in a task that was cancelled.
    done, _ = await asyncio.wait([leaving], timeout=limits.EMBEDDED_STOP_S)
    if not done:
        process.kill()
    await leaving


def _reason(code: str, status: int, complaint: str) -> str:
    if code == SLOW:
        return f"it was not ready after {limits.EMBEDDED_START_TIMEOUT_S:.0f} s"
    if code == CRASHED:
        return f"its process ended with status {status}: {complaint or 'it said nothing'}"
    return complaint
