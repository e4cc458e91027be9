"""The processes of the demo: engines and servers, each told of at its start, all ended at the end.

Used as a context: whatever was started is gone when it is left, also after Ctrl-C.
"""

import json
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

READY_S: Final = 60.0
"""Seconds until a process has to say that it is ready, on a busy machine."""

STOP_S: Final = 20.0
"""Seconds that a server may take to put back what is in flight."""


class DemoError(Exception):
    """What the person at the terminal is told."""


class Processes:
    """The children of the demo; `folder` takes what they print on standard error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            with suppress(ProcessLookupError):
                process.terminate()
        for process in reversed(self._running):
            self._wait(process)
        self._running.clear()

    def start(
        self, name: str, module: str, *arguments: str
    ) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
        """The process, and the line of JSON by which it says that it is ready. Raises DemoError."""
        log = self._folder / f"{name}.log"
        command = [sys.executable, "-m", module, *arguments]
        with log.open("ab") as stderr:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                cwd=self._folder,
            )  # fmt: skip
        self._running.append(process)
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], READY_S)
        line = process.stdout.readline() if readable else b""
        if not line:
            raise DemoError(f"{name} did not start; what it said is in {log}")
        ready: dict[str, Any] = json.loads(line)
        return process, ready

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """Ends one of them, and waits until it is gone."""
        process.terminate()
        self._wait(process)
        self._running.remove(process)

    def dead(self) -> bool:
        """Whether one of them has ended by itself."""
        return any(process.poll() is not None for process in self._running)

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
