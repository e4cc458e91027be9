"""The command `lowtide` as a process of its own that starts at once: forked, not loaded anew.

Tests that start it a few hundred times would spend most of their time in imports. One process per
test process, the stem, loads everything there is and waits; what it forks is as any other process:
its own id, folder, environment, pipes and end, and may be killed. Where the environment changes how
Python itself starts (PYTHONPATH), and where fork is not safe (macOS), the command is executed.
"""

import asyncio
import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple, Self

from lowtide.cli.commands import command_line

_LINE_BYTES_MAX: Final = 2**24
_ASK_BYTES_MAX: Final = 2**20
_EXECUTED: Final = (sys.executable, "-m", "lowtide")
_LOADED: Final = (
    "alembic.command",
    "alembic.runtime.environment",
    "asyncpg",
    "lowtide.api.app",
    "lowtide.cli.doctor.accounts",
    "lowtide.cli.doctor.checks",
    "lowtide.cli.doctor.integrity",
    "lowtide.cli.doctor.workers",
    "lowtide.cli.server.foreground",
    "lowtide.cli.accounts.local_admin",
    "lowtide.cli.run.local_server",
    "lowtide.cli.server.worker_metrics",
    "lowtide.wiring.backup",
    "lowtide.wiring.restore",
    "uvloop",
)
"""What the modules of commands import only when they are at it."""


async def start(
    *arguments: str, cwd: Path, env: Mapping[str, str], stderr: int = subprocess.PIPE
) -> "ForkedCommand | asyncio.subprocess.Process":
    """Starts `lowtide ARGUMENTS`; standard output is a pipe, and `stderr` one or a descriptor."""
    same_python = env.get("PYTHONPATH") == os.environ.get("PYTHONPATH")
    if sys.platform == "linux" and same_python:
        return await ForkedCommand.start(arguments, cwd, env, stderr)
    return await asyncio.create_subprocess_exec(
        *_EXECUTED,
        *arguments,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        limit=_LINE_BYTES_MAX,
    )


class ForkedCommand:
    """What tests use of asyncio's own Process. `wait` closes the pipes; `communicate` reads them
    first."""

    def __init__(self, pid: int, *pipes: "_Pipe") -> None:
        """`pipes` are standard output, standard error if it is one, and what the stem tells."""
        self.pid = pid
        self.returncode: int | None = None
        self._pipes = pipes
        self._reported = pipes[-1]
        self.stdout: asyncio.StreamReader | None = pipes[0].reader
        self.stderr = pipes[1].reader if len(pipes) == 3 else None
        self._end = asyncio.Lock()

    @classmethod
    async def start(
        cls, arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str], stderr: int
    ) -> Self:
        ours, theirs = [], []
        for number in (1, 2, 3):
            if number == 2 and stderr != subprocess.PIPE:
                theirs.append(os.dup(stderr))
                continue
            read, write = os.pipe()
            ours.append(read)
            theirs.append(write)
        try:
            _stem().ask({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}, *theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        pipes = [await _Pipe.open(descriptor) for descriptor in ours]
        return cls(await pipes[-1].number(), *pipes)

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process, if it is still there."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        async with self._end:
            if self.returncode is None:
                self.returncode = await self._reported.number()
                for pipe in self._pipes:
                    pipe.close()
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """All that the process still writes, once it has ended."""
        written = await asyncio.gather(*(pipe.reader.read() for pipe in self._pipes[:-1]))
        await self.wait()
        return written[0], b"".join(written[1:])


class _Pipe(NamedTuple):
    """The end of a pipe that is read."""

    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport

    @classmethod
    async def open(cls, descriptor: int) -> Self:
        reader = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
        file = os.fdopen(descriptor, "rb", 0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file
        )
        return cls(reader, transport)

    async def number(self) -> int:
        """The next thing that the stem tells: first the id of the process, then how it ended."""
        line = await self.reader.readline()
        assert line, "the stem is gone"
        return int(line)

    def close(self) -> None:
        self.transport.close()


class _Stem:
    """The process that forks, as the test process sees it. It ends when its socket is closed."""

    def __init__(self) -> None:
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(far.fileno())],
            pass_fds=[far.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # One thread: a process with more must not fork.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )
        far.close()

    def ask(self, asked: Mapping[str, object], *descriptors: int) -> None:
        socket.send_fds(self._socket, [json.dumps(asked).encode()], descriptors)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def _stem() -> _Stem:
    stem = _Stem()
    atexit.register(stem.close)
    return stem


# ---- in the stem ----


class _Asked(NamedTuple):
    arguments: list[str]
    cwd: str
    env: dict[str, str]
    descriptors: list[int]


def _load_everything() -> None:
    """What any command imports on its way; nothing that starts a thread or opens a file."""
    for module in _LOADED:
        import_module(module)
    command_line()
    gc.collect()
    gc.freeze()  # so that a fork's collections do not touch, and so copy, what all have


def _forked(control: socket.socket) -> _Asked | None:
    """Forks for every request. Returns in each fork, and as None when no request
    can come any more.
    """
    end_pipes: dict[int, int] = {}
    ends, wake = os.pipe()
    for descriptor in (ends, wake):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a keyboard it is for the test process
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    watched: list[socket.socket | int] = [control, ends]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if ends in ready:
            os.read(ends, 4096)
            _report_ends(end_pipes)
        if control in ready:
            message, descriptors, _, _ = socket.recv_fds(control, _ASK_BYTES_MAX, 3)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for descriptor in (ends, wake, *end_pipes.values()):
                    os.close(descriptor)
                control.close()
                return _Asked(**json.loads(message), descriptors=descriptors)
            *pipes, end_pipes[pid] = descriptors
            for descriptor in pipes:
                os.close(descriptor)
            os.write(end_pipes[pid], f"{pid}\n".encode())


def _report_ends(end_pipes: dict[int, int]) -> None:
    while end_pipes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with os.fdopen(end_pipes.pop(pid), "wb") as pipe:
            pipe.write(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(asked: _Asked) -> int:
    """Runs the requested command in this process. Returns its exit code."""
    stdout, stderr, end_pipes = asked.descriptors
    os.close(end_pipes)
    for descriptor, number in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(asked.cwd)
    os.environ.clear()
    os.environ.update(asked.env)
    time.tzset()
    sys.argv = ["lowtide", *asked.arguments]
    from lowtide.cli.app import main

    return main()


def _main() -> int:
    _load_everything()
    asked = _forked(socket.socket(fileno=int(sys.argv[1])))
    return 0 if asked is None else _become(asked)


if __name__ == "__main__":
    sys.exit(_main())
