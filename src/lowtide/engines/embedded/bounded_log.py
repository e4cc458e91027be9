"""A log file that cannot fill a disk: what the embedded engine's child says, kept in two halves.

Written by process.py with the raw bytes of the child's standard error. When the file reaches half
of the bound it becomes `<name>.1` and a new one begins, so the two together stay under the bound
and at least the last half of it is there. The last lines are also kept in memory, for error
messages. Invariant: writing never fails, since a child whose log is not read would come to a halt.
"""

import re
from collections import deque
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from lowtide import limits

# llama.cpp: "0.00.003.880 E llama_model_load: error loading model: ..."
_ERROR_LINE: Final = re.compile(r"^[\d.]+ E (?P<text>.*)$")


class BoundedLog:
    """Appends to `path`; holds it open until `close`. Raises OSError when it cannot be opened."""

    def __init__(self, path: Path, *, bytes_max: int = limits.EMBEDDED_LOG_BYTES_MAX) -> None:
        self._path = path
        self._half = bytes_max // 2
        self._lines: deque[str] = deque(maxlen=limits.EMBEDDED_LOG_TAIL_LINES)
        self._partial = b""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = _opened(path)

    @property
    def complaint(self) -> str:
        """The first line marked as an error since `forget`, else the last line; may be empty."""
        for line in self._lines:
            if match := _ERROR_LINE.match(line):
                return match["text"].strip()
        return self._lines[-1] if self._lines else ""

    def forget(self) -> None:
        """Empty the lines in memory, as a new child begins; the file keeps them."""
        self._lines.clear()
        self._partial = b""

    def write(self, block: bytes) -> None:
        """Appends `block`, wherever its line ends fall. What a full disk refuses is lost."""
        with suppress(OSError):
            if self._file.tell() + len(block) > self._half:
                self._rotate()
            self._file.write(block)
        *whole, self._partial = (self._partial + block).split(b"\n")
        self._lines.extend(line.decode("utf-8", errors="replace") for line in whole)
        self._partial = self._partial[
            -limits.KIB :
        ]  # a line without an end must not grow in memory

    def close(self) -> None:
        """Closes the file; nothing can be written any more."""
        self._file.close()

    def _rotate(self) -> None:
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        full = self._file
        self._file = _opened(self._path)
        full.close()


def _opened(path: Path) -> FileIO:
    """The file, open for appending and readable by its owner alone: an engine may log requests."""
    path.touch(mode=0o600)
    return path.open("ab", buffering=0)
