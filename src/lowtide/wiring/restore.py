"""A backup put back: looked through whole first, then brought into an empty data directory.

Called by `lowtide restore`. Invariants: nothing is written before every byte of the backup was
compared with its manifest; a backup has plain files alone, so that no link in it brings a file of
this machine into the reach of tenants; a directory with anything in it, or in use, is refused; the
database comes last, and until then the directory is marked, so that no server starts on half a
restore.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lowtide.blobs.folder.folder_copy import FolderCopy, copy_private, digest_of
from lowtide.config import Settings
from lowtide.core.integrity.backup_manifest import (
    LIST_FILE,
    PARTIAL_FILE,
    Manifest,
    ManifestError,
    read_list,
)
from lowtide.data_dir import DATABASE_FILE, LOCK_FILE, RESTORING_FILE, locked_data_dir
from lowtide.service.files.signing import SECRET_FILE
from lowtide.store.schema.compatibility import FIRST
from lowtide.store.schema.tables import HEAD
from lowtide.wiring.backup import (
    BLOBS_FOLDER,
    BackupError,
    OnProgress,
    blob_folder,
    newest_backup,
    read_manifest,
)


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was put back, and where."""

    data_dir: Path
    manifest: Manifest
    linked: int
    copied: int


def restore_backup(
    settings: Settings, source: Path, on_progress: OnProgress = lambda *_: None
) -> RestoreReport:
    """Puts the backup `source` into the data directory of the settings.

    Raises BackupError, DataDirError, OSError. After a failure of the second half the same call
    goes on where it stopped.
    """
    target = blob_folder(settings)
    manifest = _manifest_of(source)
    data_dir = settings.server.data_dir
    _check_empty(data_dir, target)
    _verify(source, manifest, on_progress)
    with locked_data_dir(data_dir, restoring=True):
        _check_empty(data_dir, target)
        (data_dir / RESTORING_FILE).touch()
        linked, copied = _bring_blobs(source, target, manifest, on_progress)
        if (source / SECRET_FILE).exists():
            copy_private(_plain(source, SECRET_FILE), data_dir / SECRET_FILE)
        temp = data_dir / f"{DATABASE_FILE}.partial"
        copy_private(source / DATABASE_FILE, temp)
        os.sync()
        temp.replace(data_dir / DATABASE_FILE)
        (data_dir / RESTORING_FILE).unlink()
        os.sync()
    return RestoreReport(data_dir=data_dir, manifest=manifest, linked=linked, copied=copied)


def _manifest_of(source: Path) -> Manifest:
    try:
        manifest = read_manifest(source)
    except ManifestError as error:
        raise BackupError(f"{source} cannot be restored: {error}.") from None
    if manifest is None:
        raise _no_backup(source)
    if not FIRST <= manifest.schema <= HEAD:
        is_newer = manifest.schema > HEAD
        raise BackupError(
            f"{source} was made by Lowtide {manifest.lowtide} with schema {manifest.schema}; this"
            f" version knows {FIRST} to {HEAD}.",
            f"Install {'that Lowtide or a newer one' if is_newer else 'the Lowtide that made it'}.",
        )
    return manifest


def _no_backup(source: Path) -> BackupError:
    if (source / PARTIAL_FILE).exists():
        return BackupError(
            f"{source} is a backup that did not end: it may lack blobs.",
            f"`lowtide backup {source}` goes on with it, while its installation is there. Else"
            " restore an earlier one.",
            code="partial",
        )
    newest = newest_backup(source, but=source) if source.is_dir() else None
    hint = None if newest is None else f"The newest backup in it is {newest}."
    return BackupError(f"{source} is no backup of Lowtide.", hint, code="no_backup")


def _check_empty(data_dir: Path, blobs: Path) -> None:
    """Raises BackupError. What a restore began may be there, and the lock."""
    if (data_dir / RESTORING_FILE).exists():
        return
    there = [path.name for path in data_dir.iterdir()] if data_dir.is_dir() else []
    if set(there) - {LOCK_FILE}:
        raise BackupError(
            f"The data directory {data_dir.absolute()} is not empty.",
            "Move it away, or name another with --data-dir.",
            code="not_empty",
        )
    if blobs.is_dir() and any(blobs.iterdir()):
        raise BackupError(
            f"The folder of blobs {blobs} is not empty.",
            "Move it away, or name another in server.blob_url.",
            code="not_empty",
        )


def _verify(source: Path, manifest: Manifest, on_progress: OnProgress) -> None:
    """Compares every file with what the manifest says. Raises BackupError naming the first."""
    try:
        actual = digest_of(_plain(source, DATABASE_FILE))
        if actual != (manifest.database_sha256, manifest.database_bytes):
            raise _damaged(source, DATABASE_FILE)
        if digest_of(_plain(source, LIST_FILE))[0] != manifest.list_sha256:
            raise _damaged(source, LIST_FILE)
        with _entries(source) as entries:
            for number, (key, digest) in enumerate(entries, 1):
                if digest_of(_plain(source, f"{BLOBS_FOLDER}/{key}"))[0] != digest:
                    raise _damaged(source, f"{BLOBS_FOLDER}/{key}")
                on_progress("verifying", number, manifest.blobs)
        if os.path.lexists(source / SECRET_FILE):
            _plain(source, SECRET_FILE)
    except FileNotFoundError as error:
        raise _damaged(source, str(Path(error.filename).relative_to(source)), "missing") from None


def _plain(source: Path, name: str) -> Path:
    """The file `name` of the backup. Raises BackupError where a link or no file stands there."""
    path, top = source / name, source.resolve()
    is_link = path.is_symlink() or path.resolve() != top / name
    if is_link or (path.exists() and not path.is_file()):
        raise _damaged(source, name, "a link or a special file, which no backup has")
    return path


def _damaged(source: Path, name: str, how: str = "not what was backed up") -> BackupError:
    return BackupError(
        f"{source} is damaged: {name} is {how}. Nothing was restored.",
        "Restore another backup; `sha256sum -c blobs.sha256` in this one lists all damage.",
        code="damaged",
    )


def _bring_blobs(
    source: Path, target: Path, manifest: Manifest, on_progress: OnProgress
) -> tuple[int, int]:
    """`(linked, copied)`."""
    folder = FolderCopy(target)
    linked = copied = 0
    with _entries(source) as entries:
        for number, (key, _) in enumerate(entries, 1):
            if not folder.has(key):
                how = folder.bring(source / BLOBS_FOLDER, key)
                linked += how == "linked"
                copied += how == "copied"
            on_progress("restoring", number, manifest.blobs)
    return linked, copied


@contextmanager
def _entries(source: Path) -> Iterator[Iterator[tuple[str, str]]]:
    """The blobs that the backup lists, with their digests."""
    try:
        with (source / LIST_FILE).open() as file:
            yield read_list(file)
    except ManifestError as error:
        raise BackupError(f"{source} is damaged: {error}.", code="damaged") from None
