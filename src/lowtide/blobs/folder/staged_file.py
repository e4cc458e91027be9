"""One file on its way into the folder: written aside, made durable, then published in one step.

Blocking code: FolderBlobs runs each call in a thread, one call at a time. Guards the contract that
a blob appears whole or not at all, never replaces another, and is on the disk, name and bytes,
before its write returns. Whatever the umask, what is made here is its owner's alone.
"""

import contextlib
import errno
import fcntl
import os
import threading
from pathlib import Path

_PUBLISH_TRIES = 3  # another process may sweep the target's folder as empty before the link
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: its fsync stops at the drive's cache
_folders_lock = threading.Lock()  # no folder is swept here between its check and the link


class StagedFile:
    """A temporary file that becomes `target`; both lie on the same file system."""

    def __init__(self, temp: Path, target: Path) -> None:
        self._temp = temp
        self._target = target
        self._fd: int | None = None

    def append(self, data: bytes | bytearray) -> None:
        """Writes all of `data`; the first call creates the file. Raises OSError."""
        if self._fd is None:
            self._fd = self._create()
        rest = memoryview(data)
        while rest:  # a disk that fills up takes a part first and refuses the next call
            rest = rest[os.write(self._fd, rest) :]

    def finish(self, rest: bytes | bytearray) -> None:
        """Appends the rest, makes all durable, then visible; the temporary file goes in any case.

        Raises FileExistsError when the target is taken, OSError.
        """
        try:
            self.append(rest)
            assert self._fd is not None
            sync(self._fd)
            self._link()
        finally:
            self.discard()
        try:
            sync_folder(self._target.parent)
        except OSError:
            self.take_back()  # visible but maybe not durable: the caller hears of a failure
            raise

    def discard(self) -> None:
        """Removes the temporary file; safe to call at any moment and more than once."""
        self._close()
        # A file system gone read-only keeps the leftover for `clean_up`; the first error counts.
        with contextlib.suppress(OSError):
            self._temp.unlink(missing_ok=True)

    def take_back(self) -> None:
        """Removes the target again; call it only after this file published it."""
        self._target.unlink(missing_ok=True)

    def _create(self) -> int:
        if self._target.exists():  # before a long upload is spooled, not after
            raise FileExistsError(str(self._target))
        with _folders_lock:
            _make_folder(self._temp.parent)
        return os.open(self._temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _link(self) -> None:
        """A hard link is portable, atomic and refuses to replace; a rename replaces."""
        for tries_left in reversed(range(_PUBLISH_TRIES)):
            try:
                with _folders_lock:
                    _make_folder(self._target.parent)
                    os.link(self._temp, self._target)
            except FileNotFoundError:
                if not tries_left:
                    raise
            else:
                return


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Removes `folder` and its parents below `root`, up to the first that is not empty."""
    with _folders_lock, contextlib.suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def _make_folder(folder: Path) -> None:
    """Creates it and its parents, each durable in its own parent. Raises OSError.

    Under the lock, so that no second writer goes on in a folder whose name is not on the disk yet.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        try:
            each.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError as error:  # a file; "exists" would read as a blob that is there
            raise NotADirectoryError(
                errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(each)
            ) from error
        sync_folder(each.parent)


def sync(fd: int) -> None:
    """Brings a file's bytes to the medium itself."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(fd, _FULL_SYNC)
    else:
        os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Brings a folder's names to the medium."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
