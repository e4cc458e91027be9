"""A backup of the embedded pair, SQLite and a folder of blobs, while a server works on it.

Called by `lowtide backup`. The order makes it whole: first the database at one moment, then every
blob that this moment names. Blobs are written before the rows that name them, so all were there
then; what the sweep deleted since is found missing, and the database is taken again, at a later
moment that does not name it any more. Invariant: when the manifest is there, every blob that the
copied database names is in the copy.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from lowtide import limits
from lowtide.blobs.folder.folder_copy import (
    FolderCopy,
    copy_private,
    digest_of,
    make_private_folder,
)
from lowtide.blobs.url import folder_of
from lowtide.config import Settings
from lowtide.core.integrity.backup_manifest import (
    LIST_FILE,
    MANIFEST_FILE,
    PARTIAL_FILE,
    Known,
    Manifest,
    ManifestError,
    decode_manifest,
    encode_manifest,
    list_line,
    read_list,
)
from lowtide.data_dir import DATABASE_FILE
from lowtide.service.files.signing import SECRET_FILE
from lowtide.store.connection.sqlite_copy import NamedBlobs, copy_database, schema_of_file
from lowtide.version import VERSION
from lowtide.wiring.database import is_single_machine

BLOBS_FOLDER = "blobs"

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


class BackupError(Exception):
    """Why there is no backup, or none to restore, and in `hint` what would help."""

    def __init__(self, message: str, hint: str | None = None, *, code: str = "backup") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class BackupReport(msgspec.Struct, frozen=True, kw_only=True):
    """`base`: the earlier backup that blobs are shared with; `new` of them are not in that one."""

    path: Path
    manifest: Manifest
    new: int
    linked: int
    copied: int
    copied_bytes: int
    base: Path | None
    missing_keys: tuple[str, ...]


class _Tally(msgspec.Struct):
    """What one round over the named blobs came to."""

    blobs: int = 0
    bytes: int = 0
    new: int = 0
    linked: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing: int = 0
    missing_keys: list[str] = msgspec.field(default_factory=list)


def make_backup(
    settings: Settings, dest: Path, on_progress: OnProgress = lambda *_: None
) -> BackupReport:
    """Makes a backup in the new folder `dest`, or goes on with one that did not end.

    Raises BackupError, StoreError, OSError; what is there by then is kept for the next try.
    """
    source = blob_folder(settings)
    database = settings.server.data_dir / DATABASE_FILE
    if not database.is_file():
        raise BackupError(f"There is nothing to back up: {database} does not exist.")
    _check_place(settings, dest)
    with _begun(dest):
        base = newest_backup(dest.parent, but=dest)
        tally = _rounds(database, source, dest, base, on_progress)
        _copy_secret(settings.server.data_dir, dest)
        manifest = _seal(settings, dest, tally, on_progress)
    return BackupReport(
        path=dest,
        manifest=manifest,
        new=tally.new,
        linked=tally.linked,
        copied=tally.copied,
        copied_bytes=tally.copied_bytes,
        base=base,
        missing_keys=tuple(tally.missing_keys),
    )


def blob_folder(settings: Settings) -> Path:
    """The folder of the embedded pair's blobs. Raises BackupError for anything but that pair."""
    folder = folder_of(settings.server.blob_url, settings.server.data_dir.absolute() / "blobs")
    if is_single_machine(settings) and folder is not None:
        return folder
    raise BackupError(
        "Only the embedded pair, SQLite and a folder, is copied by Lowtide; this installation uses"
        f" {'SQLite' if is_single_machine(settings) else 'PostgreSQL'} and"
        f" {'a folder' if folder is not None else 'a bucket'}.",
        "Back up the database first (pg_dump, or point-in-time recovery) and the blobs after it (a"
        " copy, or bucket versioning). After a restore of either, `lowtide doctor --repair` mends"
        " the difference. See docs/how-to/backup.md.",
        code="not_embedded",
    )


def read_manifest(folder: Path) -> Manifest | None:
    """None when the folder holds no whole backup. Raises ManifestError for one that is damaged."""
    try:
        return decode_manifest((folder / MANIFEST_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def newest_backup(folder: Path, *, but: Path) -> Path | None:
    """The latest whole backup among the folders in `folder`."""
    backups: list[tuple[datetime, Path]] = []
    for child in folder.iterdir():
        try:
            manifest = read_manifest(child) if child != but else None
        except (ManifestError, OSError):
            continue  # of no use to share with
        if manifest is not None:
            backups.append((manifest.created_at, child))
    return max(backups)[1] if backups else None


def _check_place(settings: Settings, dest: Path) -> None:
    if dest.resolve().is_relative_to(settings.server.data_dir.resolve()):
        raise BackupError(
            f"{dest} lies in the data directory: what destroys one would destroy the other.",
            "Name a folder outside of it, best on another disk.",
        )
    if (dest / MANIFEST_FILE).exists():
        raise BackupError(
            f"{dest} is a backup already, and is not overwritten.",
            "Name a new folder beside it: what both have is stored once.",
            code="exists",
        )
    if dest.is_dir() and not (dest / PARTIAL_FILE).exists() and any(dest.iterdir()):
        raise BackupError(
            f"{dest} is not empty, and no backup that was begun.", "Name a new folder."
        )


@contextmanager
def _begun(dest: Path) -> Iterator[None]:
    """Creates the folder, marked as unfinished and locked; the mark is removed when the
    block ends well.

    It holds every tenant's texts: no other user of the machine may read it, whatever the umask.
    """
    dest.parent.mkdir(parents=True, exist_ok=True)
    make_private_folder(dest)
    mark = dest / PARTIAL_FILE
    mark.touch(mode=0o600)
    with mark.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackupError(f"Another process is making the backup {dest}.") from None
        yield
        mark.unlink()


def _rounds(
    database: Path, source: Path, dest: Path, base: Path | None, on_progress: OnProgress
) -> _Tally:
    """Copies in rounds until a copy of the database names no missing blob, or only those
    that stay missing.
    """
    copy = dest / f"{DATABASE_FILE}.partial"
    sums = _Tally()
    for last in (*[False] * (limits.BACKUP_ROUNDS_MAX - 1), True):
        copy.unlink(missing_ok=True)
        copy_database(database, copy, lambda done, of: on_progress("database", done, of))
        tally = _bring_blobs(copy, source, dest, base, on_progress)
        sums.new += tally.new
        sums.linked += tally.linked
        sums.copied += tally.copied
        sums.copied_bytes += tally.copied_bytes
        if last or not tally.missing or tally.missing_keys == sums.missing_keys:
            break  # the same as a moment ago: not swept meanwhile, but lost before
        sums.missing_keys = tally.missing_keys
    sums.blobs, sums.bytes = tally.blobs, tally.bytes
    sums.missing, sums.missing_keys = tally.missing, tally.missing_keys
    return sums


def _bring_blobs(
    copy: Path, source: Path, dest: Path, base: Path | None, on_progress: OnProgress
) -> _Tally:
    """One pass over the named blobs, in the order of their keys, beside the lists that know some
    of their digests.
    """
    tally = _Tally()
    folder = FolderCopy(dest / BLOBS_FOLDER)
    fresh, before = dest / f"{LIST_FILE}.partial", dest / f"{LIST_FILE}.before"
    if fresh.exists():
        fresh.replace(before)
    with ExitStack() as stack:
        named = stack.enter_context(NamedBlobs(copy))
        ours = Known(stack.enter_context(_listed(before)))
        theirs = Known(stack.enter_context(_listed(base / LIST_FILE if base else None)))
        fresh.touch(mode=0o600)
        lines = stack.enter_context(fresh.open("w"))
        total = named.count()
        for number, key in enumerate(named, 1):
            digest = _bring(folder, key, source, dest, base, tally, ours, theirs)
            if digest is not None:
                lines.write(list_line(key, digest))
            on_progress("blobs", number, total)
    before.unlink(missing_ok=True)
    return tally


def _bring(
    folder: FolderCopy,
    key: str,
    source: Path,
    dest: Path,
    base: Path | None,
    tally: _Tally,
    ours: Known,
    theirs: Known,
) -> str | None:
    """Brings the blob into the backup. Returns its digest; None when it is nowhere."""
    known, shared = ours.digest(key), theirs.digest(key)
    place = dest / BLOBS_FOLDER / key
    if not folder.has(key):
        known = None
        how = folder.bring(base / BLOBS_FOLDER, key) if base and shared else None
        is_new = how is None
        if is_new:
            shared = None
            how = folder.bring(source, key)
        if how is None:
            tally.missing += 1
            if len(tally.missing_keys) < limits.INTEGRITY_PAGE:
                tally.missing_keys.append(key)
            return None
        tally.new += is_new
        tally.linked += how == "linked"
        if how == "copied":
            tally.copied += 1
            tally.copied_bytes += place.stat().st_size
    tally.blobs += 1
    tally.bytes += place.stat().st_size
    return known or shared or digest_of(place)[0]


@contextmanager
def _listed(path: Path | None) -> Iterator[Iterator[tuple[str, str]]]:
    """The entries of a list, or none where there is no list."""
    if path is None or not path.exists():
        yield iter(())
        return
    with path.open() as file, closing(read_list(file, strict=False)) as entries:  # type: ignore[type-var]
        yield entries


def _copy_secret(data_dir: Path, dest: Path) -> None:
    """Copies the secret, so that upload addresses that were given out stay good after a restore."""
    secret = data_dir / SECRET_FILE
    if secret.exists():
        copy_private(secret, dest / SECRET_FILE)


def _seal(settings: Settings, dest: Path, tally: _Tally, on_progress: OnProgress) -> Manifest:
    """Gives all files their final names, durably, and the manifest last."""
    database, listed = dest / DATABASE_FILE, dest / LIST_FILE
    (dest / f"{DATABASE_FILE}.partial").replace(database)
    (dest / f"{LIST_FILE}.partial").replace(listed)
    digest, size = digest_of(database)
    manifest = Manifest(
        lowtide=VERSION,
        schema=schema_of_file(database),
        created_at=datetime.now(UTC),
        data_dir=str(settings.server.data_dir.absolute()),
        database_bytes=size,
        database_sha256=digest,
        list_sha256=digest_of(listed)[0],
        blobs=tally.blobs,
        blob_bytes=tally.bytes,
        missing=tally.missing,
    )
    on_progress("writing to disk", 1, 1)
    os.sync()  # one call for all of the files: a whole backup must survive a power cut
    temp = dest / f"{MANIFEST_FILE}.partial"
    temp.touch(mode=0o600)
    temp.write_bytes(encode_manifest(manifest))
    temp.replace(dest / MANIFEST_FILE)
    os.sync()
    return manifest
