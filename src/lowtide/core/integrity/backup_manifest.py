"""What a backup says of itself: one manifest, and one line for each blob.

Written by wiring/backup.py, read by wiring/restore.py. A backup is whole when its manifest is
there, because that is written last. The list is what `sha256sum -c` reads, sorted by key, so that
two lists are compared in one pass without holding either.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

import msgspec

FORMAT: Final = 1
"""Grows when a backup is laid out otherwise."""
MANIFEST_FILE: Final = "manifest.json"
LIST_FILE: Final = "blobs.sha256"
PARTIAL_FILE: Final = "backup.partial"
"""There from the first byte of a backup until its manifest is."""

# As in blobs/keys.py: nothing leads out of the folder.
_PART: Final = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_LINE: Final = re.compile(rf"([0-9a-f]{{64}}) [ *]blobs/({_PART}(?:/{_PART})*)\n")


class ManifestError(Exception):
    """The manifest, or a line of the list, cannot be read; the message says what is wrong."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`missing`: blobs that rows named and that were not there to be copied."""

    format: int = FORMAT
    lowtide: str
    schema: str
    created_at: datetime
    data_dir: str
    database_bytes: int
    database_sha256: str
    list_sha256: str
    blobs: int
    blob_bytes: int
    missing: int = 0


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Raises ManifestError, also for a format that is newer than this code."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ManifestError(f"{MANIFEST_FILE} cannot be read: {error}") from None
    if manifest.format > FORMAT:
        raise ManifestError(
            f"the backup has format {manifest.format}, this Lowtide knows up to {FORMAT}: a newer"
            f" Lowtide ({manifest.lowtide}) has made it"
        )
    return manifest


def list_line(key: str, digest: str) -> str:
    return f"{digest}  blobs/{key}\n"


def read_list(lines: Iterable[str], *, strict: bool = True) -> Iterator[tuple[str, str]]:
    """`(key, sha256)` of each line. Raises ManifestError; with `strict` False passes over lines
    that are damaged, as the last one of a list whose writer was killed may be.
    """
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is not None:
            yield match[2], match[1]
        elif strict:
            raise ManifestError(f"line {number} of {LIST_FILE} is damaged")


class Known:
    """Digests out of a sorted list, asked for in the order of the keys. Holds one line."""

    def __init__(self, entries: Iterable[tuple[str, str]] = ()) -> None:
        self._entries = iter(entries)
        self._next = next(self._entries, None)

    def digest(self, key: str) -> str | None:
        """None when the list does not have it. Keys must not fall from one call to the next."""
        while self._next is not None and self._next[0] < key:
            self._next = next(self._entries, None)
        if self._next is None or self._next[0] != key:
            return None
        return self._next[1]
