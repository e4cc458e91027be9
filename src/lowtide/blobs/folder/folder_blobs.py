"""The blobs port on a folder of this machine: one blob, one plain file under its key.

Opened by `url.open_blobs` for the default `blob_url = "file"`. Own code over plain files rather
than obstore, which neither syncs nor keeps streamed writes create-only
(docs/decisions/0002-folder-blobs.md). Temporary files live in `.tmp` inside the folder, so that
publishing is one link on one file system. All blocking calls run in threads, one block of
`limits.STREAM_BLOCK_BYTES` per call.
"""

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TypeVar

from lowtide import limits
from lowtide.blobs.folder.staged_file import StagedFile, remove_empty_folders
from lowtide.blobs.keys import check_key, check_prefix, check_range
from lowtide.blobs.probe import probe_create_only
from lowtide.blobs.ranges import coalesce, slices
from lowtide.blobs.shield import shield_to_end
from lowtide.blobs.writer import BufferedBlobWriter
from lowtide.ports.blobs import (
    BlobExists,
    BlobInfo,
    BlobNotFound,
    BlobsFull,
    BlobsUnavailable,
    BlobWriter,
)

TEMP_FOLDER = ".tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

T = TypeVar("T")


class FolderBlobs:
    """Blobs as files under `folder`, which is created on the first write.

    A blob that is missing while the folder is another one than it was, since its file system was
    unmounted or something stands in its place, is no lost blob: that is told as unavailable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._inode: int | None = None
        """The inode of the folder when a blob was first found there."""

    async def put(self, key: str, data: bytes) -> None:
        staged = self._stage(key)
        await self._in_thread(lambda: staged.finish(data), key, undo=lambda _: staged.take_back())

    @asynccontextmanager
    async def write(self, key: str, *, is_fresh: bool = False) -> AsyncIterator[BlobWriter]:  # noqa: ARG002
        staged = self._stage(key)
        writer = BufferedBlobWriter(
            lambda data: self._in_thread(lambda: staged.append(data), key),
            limits.STREAM_BLOCK_BYTES,
        )
        try:
            yield writer
        except BaseException:
            await self._in_thread(staged.discard, key)
            raise
        rest = writer.take()
        await self._in_thread(lambda: staged.finish(rest), key, undo=lambda _: staged.take_back())

    async def size(self, key: str) -> int:
        path = self._path(key)

        def file_size() -> int:
            with self._opened(path, key) as fd:
                return os.fstat(fd).st_size

        return await self._in_thread(file_size, key)

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        check_range(offset, length)
        path = self._path(key)

        def read_range() -> bytes:
            with self._opened(path, key) as fd:
                return os.pread(fd, _clipped(fd, offset, length), offset)

        return await self._in_thread(read_range, key)

    async def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        for offset, length in ranges:
            check_range(offset, length)
        path = self._path(key)

        def read_spans() -> list[bytes]:
            parts = [b""] * len(ranges)
            with self._opened(path, key) as fd:
                for span in coalesce(ranges):
                    length = _clipped(fd, span.start, span.end - span.start)
                    data = os.pread(fd, length, span.start)
                    for position, part in slices(span, data, ranges):
                        parts[position] = part
            return parts

        return await self._in_thread(read_spans, key)

    async def stream(
        self, key: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        check_range(offset, length)
        path = self._path(key)
        fd = await self._in_thread(lambda: self._open(path, key), key, undo=os.close)
        try:
            end = offset + _clipped(fd, offset, length)
            while offset < end:
                wanted = min(limits.STREAM_BLOCK_BYTES, end - offset)
                block = await self._in_thread(partial(os.pread, fd, wanted, offset), key)
                if not block:
                    raise BlobsUnavailable(f"{key} became shorter while it was read")
                offset += len(block)
                yield block
        finally:
            os.close(fd)

    async def delete(self, key: str) -> None:
        path = self._path(key)

        def remove() -> None:
            with suppress(NotADirectoryError, IsADirectoryError):  # then no blob has this key
                path.unlink(missing_ok=True)
            remove_empty_folders(path.parent, self._folder)  # a batch's go with its last blob

        await self._in_thread(remove, key)

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        entries = self._walk(self._folder / check_prefix(prefix))
        while page := await self._in_thread(
            lambda: [*islice(entries, limits.BLOB_LIST_PAGE)], prefix
        ):
            for info in page:
                yield info

    async def clean_up(self, older_than: datetime) -> int:
        def remove_leftovers() -> int:
            removed = 0
            for entry in _entries(self._folder / TEMP_FOLDER):
                with suppress(FileNotFoundError):  # its writer finished meanwhile
                    if entry.stat().st_mtime < older_than.timestamp():
                        Path(entry.path).unlink()
                        removed += 1
            return removed

        return await self._in_thread(remove_leftovers, TEMP_FOLDER)

    async def probe(self) -> None:
        await probe_create_only(self, f"the folder {self._folder}", [self.put])

    def _path(self, key: str) -> Path:
        return self._folder / check_key(key)

    def _stage(self, key: str) -> StagedFile:
        return StagedFile(self._folder / TEMP_FOLDER / secrets.token_hex(16), self._path(key))

    def _walk(self, folder: Path) -> Iterator[BlobInfo]:
        folders = [folder]
        while folders:
            for entry in _entries(folders.pop()):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    continue
                with suppress(FileNotFoundError):  # deleted while we walk
                    stat = entry.stat()
                    key = Path(entry.path).relative_to(self._folder).as_posix()
                    yield BlobInfo(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))

    async def _in_thread(
        self, work: Callable[[], T], key: str, undo: Callable[[T], None] | None = None
    ) -> T:
        """Runs blocking work to its end; the operating system's errors become the port's."""
        with self._translated(key):
            return await shield_to_end(
                asyncio.to_thread(work), undo and (lambda result: asyncio.to_thread(undo, result))
            )

    def _open(self, path: Path, key: str) -> int:
        """A descriptor to read the blob. Raises BlobNotFound, OSError."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            self._check_folder()
            raise BlobNotFound(f"no blob {key}") from error
        if S_ISREG(os.fstat(fd).st_mode):
            if self._inode is None:
                self._inode = self._folder.stat().st_ino
            return fd
        os.close(fd)
        raise BlobNotFound(f"no blob {key}")  # the key names a folder of blobs

    @contextmanager
    def _opened(self, path: Path, key: str) -> Iterator[int]:
        fd = self._open(path, key)
        try:
            yield fd
        finally:
            os.close(fd)

    def _check_folder(self) -> None:
        """Raises OSError if blobs cannot be looked for."""
        try:
            status = self._folder.stat()
        except FileNotFoundError:
            if self._inode is None:
                return  # nothing was ever written
            raise
        if not S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if self._inode not in (None, status.st_ino):
            raise OSError("it is another folder than before: is its file system mounted?")

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise BlobExists(f"{key} exists already") from error
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _FULL:
                raise BlobsFull(
                    f"no room for {key} in {self._folder}: {reason}. Free space there, raise"
                    " its quota, or move server.data_dir to a larger disk."
                ) from error
            raise BlobsUnavailable(
                f"cannot use {key} in {self._folder}: {reason}. The folder must exist or be"
                " creatable, be writable for this user, and lie on a file system with hard links;"
                " otherwise set server.data_dir to one that does."
            ) from error


def _clipped(fd: int, offset: int, length: int | None) -> int:
    """How many bytes of the range exist; also keeps an absurd length from being allocated."""
    rest = max(0, os.fstat(fd).st_size - offset)
    return rest if length is None else min(length, rest)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in the folder, in no order; nothing when there is no such folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from entries
