"""The data directory: it exists, is writable, and belongs to one process while that runs.

The lock is what lets a restart take over at once: the process that holds it knows that every lease
taken under this directory belongs to a process that is gone. It is the kernel's (flock), so it ends
with its process however that ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOCK_FILE: Final = "lock"
DATABASE_FILE: Final = "lowtide.db"
_RELOADS: Final = "reloads"
"""Stands behind the process id in the lock while SIGHUP asks that process for a reload."""

RESTORING_FILE: Final = "restore.partial"
"""There while a backup is being put back: what is in the directory is not whole."""


class DataDirError(Exception):
    """The directory cannot be used; the message says why and what to do."""


class DataDirInUse(DataDirError):
    """Another Lowtide has it: the process `owner`. `reloads`: SIGHUP lets it read its settings
    again; it would end another one, as a command.
    """

    def __init__(self, message: str, owner: str, *, reloads: bool = False) -> None:
        super().__init__(message)
        self.owner = owner
        self.reloads = reloads


@contextmanager
def locked_data_dir(path: Path, *, restoring: bool = False) -> Iterator[Path]:
    """Makes the directory if need be and holds its lock. Raises DataDirError.

    Only who is `restoring` may have one whose restore has not ended.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds every tenant's texts
        handle = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(
            f"cannot use the data directory {path.absolute()}: {error.strerror}."
            " Choose another with --data-dir, or make it writable."
        ) from None
    try:
        _lock(handle, path)
        if not restoring and (path / RESTORING_FILE).exists():
            raise DataDirError(
                f"the data directory {path.absolute()} holds a restore that did not end."
                " Run the same `lowtide restore` again; it goes on where it stopped."
            )
        yield path
    finally:
        os.close(handle)


def mark_reloadable(path: Path) -> None:
    """Says in the lock, which this process holds, that SIGHUP lets it read its settings again."""
    with (path / LOCK_FILE).open("a") as lock:
        lock.write(f"{_RELOADS}\n")


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner, *words = os.pread(handle, 32, 0).decode(errors="replace").split() or ["unknown"]
        raise DataDirInUse(
            f"the data directory {path.absolute()} is in use by another Lowtide (process {owner})."
            " Stop that one, or give this one its own with --data-dir.",
            owner,
            reloads=_RELOADS in words,
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
