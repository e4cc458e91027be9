"""Processes that the driver starts, kills, stops and starts again, as an init system would.

Invariant: a child that was started is gone when `Children` is left, stopped ones included.
"""

import asyncio
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

READY_S: Final = 60.0
"""How long a process may take to say that it is ready, on a busy machine."""

END_S: Final = 30.0
"""How long it may take to end once it was told to."""


class ChildFailed(Exception):
    """A process did not get ready, or ended by itself; the message has the end of its log."""


class Child:
    """One place for a process: the same command again and again, one life at a time."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        self.lives = 0
        self._born_at = 0
        """Where the log of this life begins."""
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> dict[str, Any]:
        """What it prints when it is ready, read as JSON. Raises ChildFailed."""
        assert not self.runs
        with self.log.open("ab") as log:
            log.write(f"---- life {self.lives + 1} at {time.monotonic():.3f}\n".encode())
            self._born_at = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=dict(self._environment), start_new_session=True,
            )  # fmt: skip
        self.lives += 1
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        ready = dict(json.loads(line)) if line else {"error": "nothing on standard output"}
        if "error" in ready:
            raise ChildFailed(f"{self.name}: {ready['error']}\n{self.reported(in_this_life=True)}")
        return ready

    def send(self, number: signal.Signals) -> float:
        """Send a signal; when."""
        at = time.monotonic()
        os.kill(self.pid, number)
        return at

    async def kill(self) -> float:
        """SIGKILL, and wait until it is gone; when it was sent."""
        at = self.send(signal.SIGKILL)
        await self.ended()
        return at

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        async with asyncio.timeout(END_S):
            await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode

    @contextmanager
    def bounded(self, what: int, count: int) -> Iterator[None]:
        """Lower one of its limits (`resource.RLIMIT_`...) to `count` while the context lasts."""
        soft, hard = resource.prlimit(self.pid, what)
        resource.prlimit(self.pid, what, (count, hard))
        try:
            yield
        finally:
            resource.prlimit(self.pid, what, (soft, hard))

    def starved_s(self) -> float:
        """How long its main thread was ready to run and had no processor, in this life so far."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def reported(self, *, in_this_life: bool = False) -> str:
        """What it wrote to its log."""
        return self.log.read_bytes()[self._born_at if in_this_life else 0 :].decode(
            errors="replace"
        )


class Children:
    """All of a node's processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self._all:
            if child.runs:
                with suppress(ProcessLookupError):
                    await child.kill()

    def add(self, name: str, *arguments: str | Path, under: Sequence[str] = ()) -> Child:
        """A child `python ARGUMENTS`; `under` is put before, as in `ip netns exec NAME`."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LOWTIDE_")}
        command = (*under, sys.executable, *map(str, arguments))
        child = Child(name, command, self.folder / f"{name}.log", environment)
        self._all.append(child)
        return child


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
