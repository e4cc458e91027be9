"""Blobs from one folder into another, by hard link where the file system has them, else byte by
byte.

Used by wiring/backup.py and restore.py, blocking. Blobs never change and links count, so a link is
a copy that costs nothing and outlives its source. Invariants: a file under its final name is whole;
what is made here is its owner's alone, whatever the umask.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from lowtide import limits

_NO_LINK: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES}
)
TEMP_SUFFIX: Final = ".partial"

How = Literal["linked", "copied"]
OnBytes = Callable[[int], None]


class FolderCopy:
    """Brings blobs into `target`."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._without_links: set[Path] = set()
        """Sources on another file system, or where links are refused."""
        self._made: set[Path] = set()

    def has(self, key: str) -> bool:
        return (self._target / key).is_file()

    def bring(self, source: Path, key: str) -> How | None:
        """Links or copies the blob out of the folder `source`; None when it is not there.

        Raises OSError.
        """
        here, there = source / key, self._target / key
        self._make_folder(there.parent)
        if source not in self._without_links:
            try:
                os.link(here, there)
            except FileNotFoundError:
                return None
            except FileExistsError:
                return "linked"
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                self._without_links.add(source)
            else:
                return "linked"
        return self._copy(here, there)

    def _copy(self, here: Path, there: Path) -> How | None:
        temp = there.with_name(there.name + TEMP_SUFFIX)
        try:
            source = here.open("rb")
        except FileNotFoundError:
            return None
        try:
            temp.touch(mode=0o600)
            with source, temp.open("wb") as target:
                while block := source.read(limits.STREAM_BLOCK_BYTES):
                    target.write(block)
            temp.rename(there)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        return "copied"

    def _make_folder(self, folder: Path) -> None:
        if folder not in self._made:
            make_private_folder(folder)
            if len(self._made) >= limits.INTEGRITY_PAGE:
                self._made.clear()
            self._made.add(folder)


def copy_private(here: Path, there: Path) -> None:
    """Copies a file of the same two folders that is no blob. Raises OSError."""
    there.touch(mode=0o600)
    there.chmod(0o600)
    shutil.copyfile(here, there)


def make_private_folder(folder: Path) -> None:
    """Makes it and the parents that are missing, each its owner's alone. Raises OSError."""
    missing = [folder, *folder.parents]
    for each in reversed([path for path in missing if not path.exists()]):
        each.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)  # complains of a file in its place


def digest_of(path: Path, on_bytes: OnBytes = lambda _: None) -> tuple[str, int]:
    """`(SHA-256 in hex, bytes)` of a file. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(limits.STREAM_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
            on_bytes(len(block))
    return digest.hexdigest(), size
