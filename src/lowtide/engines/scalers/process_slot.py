"""One engine of a `command` scaler: its process, and the file that outlives this process.

A slot is a file. Whoever starts an engine locks it (flock) and hands the lock to the engine's
process, which so holds it until its end, whatever becomes of Lowtide. Invariants: no engine is
started in a slot whose lock is held, so one that runs is not doubled after a crash or a restart; no
process is ended by a number that was written down while the lock is not held, so another that
got the number later is not hit.
"""

import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

_LOCK_FD: Final = 9  # the highest that every shell can write to
_RUN: Final = f'echo $$ >&{_LOCK_FD}; exec "$@"'
_DETACH: Final = f'echo $$ >&{_LOCK_FD}; "$@" && echo started {{boot}} >&{_LOCK_FD}'
"""The shell writes its own number first, so that an engine that runs can always be found, and with
a stop command also that the start command has ended well: then what it started runs on its own,
until the machine is started anew.
"""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

Condition = Literal["empty", "running", "ended"]


class SlotState(msgspec.Struct, frozen=True):
    """`pid`: of the process that leads the engine's group, None where it is not written yet.
    `is_detached`: the start command has ended and left the engine to itself.
    """

    condition: Condition
    pid: int | None = None
    is_detached: bool = False


class ProcessSlot:
    """One slot. Raises OSError where its file cannot be used."""

    def __init__(self, path: Path, replica: int) -> None:
        self.path = path
        self.replica = replica
        self._child: int | None = None
        self._status: int | None = None

    @property
    def is_child_alive(self) -> bool:
        """Whether the process that was started here was not reaped yet. One that ends lets go of
        the lock first, and has its status a moment later.
        """
        return self._child is not None

    def state(self) -> SlotState:
        """What runs in it."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return SlotState("empty")
        try:
            words = os.pread(fd, 200, 0).decode("ascii", "replace").split()
            pid = int(words[0]) if words and words[0].isdigit() else None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return SlotState("running", pid)
            if words[1:] == ["started", _boot()]:
                return SlotState("running", pid, is_detached=True)
            return SlotState("ended" if words else "empty", pid)
        finally:
            os.close(fd)

    def start(
        self, command: Sequence[str], environ: Mapping[str, str], log_fd: int, *, detaches: bool
    ) -> bool:
        """Starts the command as the leader of a group of its own, its output going to `log_fd`.
        `detaches`: one that ends with status 0 has started something that runs on. False: the
        slot is taken, and nothing was started.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            os.ftruncate(fd, 0)
            self._status = None
            script = _DETACH.format(boot=_boot()) if detaches else _RUN
            self._child = os.posix_spawn(
                "/bin/sh",
                ["sh", "-c", script, "sh", *command],
                dict(environ),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log_fd, 1),
                    (os.POSIX_SPAWN_DUP2, log_fd, 2),
                    (os.POSIX_SPAWN_DUP2, fd, _LOCK_FD),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
            )
            return True
        finally:
            os.close(fd)  # closing leaves the lock with the child, unlocking would not

    def reap(self) -> int | None:
        """Takes the exit status of the process that was started here, if it has ended, and returns
        it until the next start; negative: the signal that ended it. None while it runs, or where
        another process has started it.
        """
        if self._child is not None:
            try:
                pid, status = os.waitpid(self._child, os.WNOHANG)
            except ChildProcessError:
                self._child = None
            else:
                if pid:
                    self._child = None
                    self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def signal(self, number: int) -> None:
        """Sends a signal to the group of the engine that runs here."""
        state = self.state()
        if state.condition == "running" and not state.is_detached and state.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(state.pid, number)

    def clear(self) -> None:
        """Makes the slot empty, unless something of an engine holds it."""
        with suppress(FileNotFoundError, BlockingIOError):
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(fd, 0)
            finally:
                os.close(fd)


def _boot() -> str:
    """What tells this start of the machine from others; one word for all where nothing does."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"
