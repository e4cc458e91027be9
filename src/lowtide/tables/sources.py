"""The files of a table: one path, a folder, a glob, or the same in a bucket, in order of names.

The reader opens what is found here. Invariant: the list is settled once; a file is identified by
name, size and content (SHA-256 on this machine, the bucket's ETag there), so that a run which goes
on later can tell that it has the same rows before it.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from lowtide.limits import STREAM_BLOCK_BYTES, TABLE_FILES_MAX
from lowtide.tables.errors import TableError
from lowtide.tables.formats import Format, format_of, suffix_format

BUCKET_SCHEMES: Final = ("s3://", "gs://")


def is_bucket(address: str) -> bool:
    """Whether it names something in an object store."""
    return address.startswith(BUCKET_SCHEMES)


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file. `folder`: where relative paths in it start; None for a file in a bucket."""

    name: str
    kind: Format
    folder: Path | None
    open: Callable[[], BinaryIO]
    identify: Callable[[], str]


def find_files(address: str) -> tuple[TableFile, ...]:
    """All files of a table, sorted by name. Raises TableError where there is none, or where they
    are of several formats."""
    files = _in_bucket(address) if is_bucket(address) else _on_disk(address)
    if not files:
        raise TableError(f"{address}: no table is there.", code="no_table")
    if len(files) > TABLE_FILES_MAX:
        raise TableError(
            f"{address}: {len(files):,} files; a table may have {TABLE_FILES_MAX:,}.",
            "Name fewer with a glob.",
        )
    kinds = sorted({file.kind for file in files})
    if len(kinds) > 1:
        raise TableError(
            f"{address}: the files are of several kinds ({', '.join(kinds)}).",
            f"Name those of one kind, for example '{address.rstrip('/*')}/*.{kinds[0]}'.",
        )
    return tuple(files)


def _on_disk(address: str) -> list[TableFile]:
    path = Path(address)
    if path.is_file():
        return [_local(path, format_of(path.name))]
    if path.is_dir():
        paths = sorted(path.iterdir())
    elif has_magic(address):
        root = Path(path.anchor) if path.is_absolute() else Path()
        paths = sorted(root.glob(address.removeprefix(path.anchor)))
    elif path.exists():
        raise TableError(
            f"{address} is no regular file.", "A table is read several times; save it."
        )
    else:
        raise TableError(f"{address}: no such file.", code="no_table")
    usable = ((each, suffix_format(each.name)) for each in paths if each.is_file())
    return [_local(each, kind) for each, kind in usable if kind and not each.name.startswith(".")]


def _local(path: Path, kind: Format) -> TableFile:
    def identify() -> str:
        digest = hashlib.sha256()
        size = 0
        with path.open("rb") as stream:
            while block := stream.read(STREAM_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        return f"{path.name} {size} {digest.hexdigest()}"

    return TableFile(str(path), kind, path.parent, lambda: path.open("rb"), identify)


def _in_bucket(address: str) -> list[TableFile]:
    """The files in a bucket. Credentials are those of the environment, as the vendors' own
    tools read them.
    """
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    parts = urlsplit(address)
    key = parts.path.lstrip("/")
    try:
        store = from_url(f"{parts.scheme}://{parts.netloc}")
        if not has_magic(key) and suffix_format(key):
            objects = [obstore.head(store, key)]
        else:
            plain = key.partition("*")[0].partition("?")[0].partition("[")[0]
            folder = key.rstrip("/") if plain == key else plain.rpartition("/")[0]
            listed = obstore.list(store, folder or None)
            objects = [meta for page in listed for meta in page if _is_wanted(meta["path"], key)]
    except FileNotFoundError:
        return []
    except (BaseError, OSError, ValueError) as error:
        raise _bucket_error(address, error) from None
    objects.sort(key=lambda meta: meta["path"])
    base = f"{parts.scheme}://{parts.netloc}/"
    return [
        _remote(base, store, meta["path"], f"{meta['size']} {meta['e_tag']}", kind)
        for meta in objects
        if (kind := suffix_format(meta["path"]))
    ]


def _is_wanted(path: str, key: str) -> bool:
    """Whether a listed path is wanted: it matches the glob, or lies directly in the folder."""
    if has_magic(key):
        return Path(path).match(key) and path.count("/") == key.count("/")
    return path.count("/") == (key.rstrip("/").count("/") + 1 if key.strip("/") else 0)


def _remote(base: str, store: object, path: str, identity: str, kind: Format) -> TableFile:
    def opened() -> BinaryIO:
        return io.BufferedReader(_RemoteReader(store, path, base + path), STREAM_BLOCK_BYTES)

    return TableFile(base + path, kind, None, opened, lambda: f"{path} {identity}")


class _RemoteReader(io.RawIOBase):
    """A file of a bucket as Python reads files: ranges are fetched as they are asked for."""

    def __init__(self, store: object, path: str, name: str) -> None:
        import obstore
        from obstore.exceptions import BaseError

        self._errors = (BaseError, OSError)
        self._name = name
        try:
            self._reader = obstore.open_reader(store, path)  # type: ignore[arg-type]
        except (BaseError, OSError) as error:
            raise _bucket_error(name, error) from None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            block = self._reader.read(len(buffer))
        except self._errors as error:
            raise _bucket_error(self._name, error) from None
        view = memoryview(block)
        buffer[: len(view)] = view
        return len(view)


def _bucket_error(address: str, error: Exception) -> TableError:
    first = str(error).strip().partition("\n")[0]
    return TableError(
        f"{address} cannot be reached: {first}",
        "Credentials come from the environment (AWS_ACCESS_KEY_ID and its like, or"
        " GOOGLE_APPLICATION_CREDENTIALS).",
        code="bucket_unavailable",
    )


def upload(path: Path, address: str) -> None:
    """Puts a finished file at `address`, whole or not at all. Raises TableError."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    parts = urlsplit(address)
    try:
        store = from_url(f"{parts.scheme}://{parts.netloc}")
        with path.open("rb") as stream:
            obstore.put(store, parts.path.lstrip("/"), stream)
    except (BaseError, OSError, ValueError) as error:
        raise _bucket_error(address, error) from None


def identity_of(files: Sequence[TableFile]) -> str:
    """SHA-256 in hex over all files: names, sizes and contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.identify().encode() + b"\n")
    return digest.hexdigest()


def exists(address: str) -> bool:
    """Whether an object is there. Raises TableError where that cannot be found out."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    parts = urlsplit(address)
    try:
        obstore.head(from_url(f"{parts.scheme}://{parts.netloc}"), parts.path.lstrip("/"))
    except FileNotFoundError:
        return False
    except (BaseError, OSError, ValueError) as error:
        raise _bucket_error(address, error) from None
    return True
