"""The output of one engine of a `command` scaler: a file that it writes itself, and that is kept
short.

The engine may outlive this process, so its output goes to a file and through no pipe. Invariant:
the file and the one before it stay within `limits.SCALER_LOG_BYTES_MAX` and what is written between
two readings; it is opened for appending, so it can be cut while the engine writes.
"""

import os
from contextlib import suppress
from pathlib import Path

from lowtide import limits


class EngineLog:
    """The log of one engine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> int:
        """A file descriptor to be handed to the engine; the caller closes it. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self.path, flags, 0o600)

    def keep_short(self) -> None:
        """Moves what is there to the file before it, once that is half of what may be kept. A line
        that is written at that moment may be lost.
        """
        with suppress(OSError):  # a full disk loses lines of a log, and nothing else
            if self.path.stat().st_size > limits.SCALER_LOG_BYTES_MAX // 2:
                before = self.path.with_name(self.path.name + ".1")
                before.touch(mode=0o600)
                before.write_bytes(self.path.read_bytes()[-limits.SCALER_LOG_BYTES_MAX // 2 :])
                os.truncate(self.path, 0)

    def last_line(self) -> str:
        """The last line that is not blank; empty where there is none."""
        try:
            with self.path.open("rb") as log:
                log.seek(max(0, self.path.stat().st_size - limits.SCALER_LOG_LINE_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
