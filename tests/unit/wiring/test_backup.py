"""wiring/backup.py and restore.py: whole copies of a pair that goes on changing."""

import asyncio
import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lowtide.blobs.folder import folder_copy
from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.config import ServerSettings, Settings
from lowtide.core.integrity.backup_manifest import LIST_FILE, MANIFEST_FILE, PARTIAL_FILE
from lowtide.data_dir import DATABASE_FILE, RESTORING_FILE, DataDirError, locked_data_dir
from lowtide.service.files.signing import SECRET_FILE
from lowtide.store.schema.tables import HEAD
from lowtide.store.sql_store import SqlStore
from lowtide.system import SystemClock
from lowtide.wiring import backup as backup_module
from lowtide.wiring.backup import BackupError, make_backup
from lowtide.wiring.restore import restore_backup
from testkit.empty_database import place_empty_database
from testkit.manual_worker import ManualWorker


class Installed:
    """An installation with a batch under way, that can be made to do more."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.blobs = data_dir / "blobs"
        self.settings = Settings(server=ServerSettings(data_dir=data_dir))
        self._files = 0
        place_empty_database(data_dir / DATABASE_FILE)
        self.run(self._first)

    def run(self, work: Callable[[SqlStore, ManualWorker], Any]) -> None:
        async def with_store() -> None:
            store = SqlStore.sqlite(self.data_dir / DATABASE_FILE)
            await store.open()
            hand = ManualWorker(store, FolderBlobs(self.blobs), SystemClock())
            hand._files = self._files  # ids go on where the last hand left them
            try:
                await work(store, hand)
            finally:
                self._files = hand._files
                await store.aclose()

        asyncio.run(with_store())

    async def _first(self, store: SqlStore, hand: ManualWorker) -> None:
        await hand.submit(await hand.upload(10), "batch_1")
        await hand.plan()
        await hand.settle("batch_1", ok=[1, 2])

    def upload(self) -> None:
        async def work(_store: SqlStore, hand: ManualWorker) -> None:
            await hand.upload(3)

        self.run(work)

    @property
    def keys(self) -> list[str]:
        return files_below(self.blobs)


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def rows(database: Path) -> list[Any]:
    """Everything that a reader could tell two databases apart by."""
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "data")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "first"


def restored(dest: Path, folder: Path) -> Path:
    restore_backup(Settings(server=ServerSettings(data_dir=folder)), dest)
    return folder


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two file systems."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(folder_copy, "os", SimpleNamespace(link=refuse))


# ---- the copy ----


def test_what_was_backed_up_comes_back_row_for_row_and_byte_for_byte(
    installed: Installed, dest: Path, tmp_path: Path
) -> None:
    report = make_backup(installed.settings, dest)
    assert (report.manifest.blobs, report.manifest.missing) == (3, 0)
    back = restored(dest, tmp_path / "again")
    assert rows(back / DATABASE_FILE) == rows(installed.data_dir / DATABASE_FILE)
    assert files_below(back / "blobs") == installed.keys
    for key in installed.keys:
        assert (back / "blobs" / key).read_bytes() == (installed.blobs / key).read_bytes()
    assert sorted(p.name for p in back.iterdir()) == ["blobs", "lock", DATABASE_FILE]


def test_the_list_is_what_sha256sum_reads(installed: Installed, dest: Path) -> None:
    make_backup(installed.settings, dest)
    subprocess.run(["sha256sum", "-c", "--quiet", LIST_FILE], cwd=dest, check=True)


def test_only_blobs_that_a_row_names_are_copied(installed: Installed, dest: Path) -> None:
    (installed.blobs / "segments/orphan").write_bytes(b"x")
    make_backup(installed.settings, dest)
    assert "segments/orphan" not in files_below(dest / "blobs")


def test_a_copied_backup_shares_nothing_with_its_source(
    installed: Installed, dest: Path, no_links: None
) -> None:
    report = make_backup(installed.settings, dest)
    assert (report.linked, report.copied) == (0, 3)
    assert report.copied_bytes == report.manifest.blob_bytes
    assert all((dest / "blobs" / key).stat().st_nlink == 1 for key in installed.keys)


def test_a_second_backup_brings_only_what_is_new(
    installed: Installed, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_backup(installed.settings, dest)
    for path in (dest / "blobs").rglob("*"):  # as if it had come from another file system
        if path.is_file():
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)
    installed.upload()

    def within_backups(here: Path, there: Path) -> None:
        if installed.data_dir in Path(here).parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        os.link(here, there)

    monkeypatch.setattr(folder_copy, "os", SimpleNamespace(link=within_backups))
    counted = Counted(folder_copy.digest_of)
    monkeypatch.setattr(backup_module, "digest_of", counted)
    second = make_backup(installed.settings, dest.with_name("second"))
    assert (second.base, second.new, second.linked, second.copied) == (dest, 1, 3, 1)
    assert counted.names == ["in2", DATABASE_FILE, LIST_FILE], "old digests are not taken again"
    assert (dest / "blobs/inputs/in1").stat().st_nlink == 2


class Counted:
    """Passes calls on and remembers the names of the files."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self._real = real
        self.names: list[str] = []

    def __call__(self, path: Path, *rest: Any) -> Any:
        self.names.append(path.name)
        return self._real(path, *rest)


def test_work_that_is_committed_meanwhile_does_not_make_the_copy_less_whole(
    installed: Installed, dest: Path, tmp_path: Path
) -> None:
    """Between database and blobs: one more upload. It is in neither, or in both."""
    done = False

    def meanwhile(what: str, _done: int, _of: int) -> None:
        nonlocal done
        if what == "blobs" and not done:
            done = True
            installed.upload()

    report = make_backup(installed.settings, dest, meanwhile)
    assert report.manifest.missing == 0 and "inputs/in2" not in files_below(dest / "blobs")
    assert doctor_finds_nothing(restored(dest, tmp_path / "again"))


def test_blobs_that_are_swept_meanwhile_lead_to_a_later_moment(
    installed: Installed, dest: Path, tmp_path: Path
) -> None:
    """The database names a blob that is gone when its turn comes: the next one does not."""
    installed.upload()
    done = False

    def meanwhile(what: str, _done: int, _of: int) -> None:
        nonlocal done
        if what == "database" and not done:
            done = True
            installed.run(_delete_second)
            (installed.blobs / "inputs/in2").unlink()

    report = make_backup(installed.settings, dest, meanwhile)
    assert done and (report.manifest.blobs, report.manifest.missing) == (3, 0)
    assert doctor_finds_nothing(restored(dest, tmp_path / "again"))


async def _delete_second(store: SqlStore, _hand: ManualWorker) -> None:
    assert await store.files.delete("proj_default", "file-in2", SystemClock().now())


def doctor_finds_nothing(data_dir: Path) -> bool:
    from lowtide.service.integrity.checker import ConsistencyChecker

    async def examine() -> bool:
        store = SqlStore.sqlite(data_dir / DATABASE_FILE)
        await store.open()
        care = ConsistencyChecker(store, FolderBlobs(data_dir / "blobs"))
        drifts = [drift async for drift in care.check_all(deep=True)]
        await store.aclose()
        return drifts == []

    return asyncio.run(examine())


def test_a_blob_that_was_lost_before_is_told_and_does_not_stop_the_backup(
    installed: Installed, dest: Path, tmp_path: Path
) -> None:
    (installed.blobs / "segments/1").unlink()
    report = make_backup(installed.settings, dest)
    assert (report.manifest.missing, report.missing_keys) == (1, ("segments/1",))
    restored(dest, tmp_path / "again")


# ---- what a backup refuses ----


def test_a_backup_is_never_overwritten(installed: Installed, dest: Path) -> None:
    make_backup(installed.settings, dest)
    before = {name: (dest / name).stat().st_mtime_ns for name in files_below(dest)}
    with pytest.raises(BackupError, match="is a backup already"):
        make_backup(installed.settings, dest)
    assert {name: (dest / name).stat().st_mtime_ns for name in files_below(dest)} == before


def test_a_folder_with_something_else_in_it_is_left_alone(installed: Installed, dest: Path) -> None:
    dest.mkdir(parents=True)
    (dest / "mine").touch()
    with pytest.raises(BackupError, match="not empty"):
        make_backup(installed.settings, dest)
    assert files_below(dest) == ["mine"]


def test_a_backup_inside_the_data_directory_is_refused(installed: Installed) -> None:
    with pytest.raises(BackupError, match="lies in the data directory"):
        make_backup(installed.settings, installed.data_dir / "backup")


@pytest.mark.parametrize(
    ("database_url", "blob_url", "what"),
    [
        ("postgresql://db/x", "s3://b", "PostgreSQL and a bucket"),
        ("sqlite", "s3://b", "SQLite and a bucket"),
        ("postgresql://db/x", "file", "PostgreSQL and a folder"),
    ],
)
def test_other_pairs_are_told_what_to_use_instead(
    tmp_path: Path, dest: Path, database_url: str, blob_url: str, what: str
) -> None:
    server = ServerSettings(data_dir=tmp_path, database_url=database_url, blob_url=blob_url)
    with pytest.raises(BackupError, match=what) as refusal:
        make_backup(Settings(server=server), dest)
    assert refusal.value.hint is not None
    assert "pg_dump" in refusal.value.hint and "doctor --repair" in refusal.value.hint
    assert not dest.exists()


def test_without_a_database_there_is_nothing_to_back_up(tmp_path: Path, dest: Path) -> None:
    with pytest.raises(BackupError, match="nothing to back up"):
        make_backup(Settings(server=ServerSettings(data_dir=tmp_path / "none")), dest)


# ---- backups that did not end ----


class Stopped(BaseException):
    """The process is gone."""


def interrupted(installed: Installed, dest: Path, at: tuple[str, int]) -> None:
    """Killed at that word on progress. The list's last line may be half written by then."""

    def stop(what: str, done: int, _of: int) -> None:
        if (what, done) == at:
            raise Stopped

    with pytest.raises(Stopped):
        make_backup(installed.settings, dest, stop)


@pytest.mark.parametrize("at", [("blobs", 1), ("blobs", 3), ("writing to disk", 1)])
def test_a_backup_that_was_interrupted_is_recognised_and_goes_on(
    installed: Installed, dest: Path, tmp_path: Path, at: tuple[str, int]
) -> None:
    interrupted(installed, dest, at)
    assert (dest / PARTIAL_FILE).exists() and not (dest / MANIFEST_FILE).exists()
    with pytest.raises(BackupError, match="did not end") as refusal:
        restored(dest, tmp_path / "again")
    assert f"lowtide backup {dest}" in (refusal.value.hint or "")
    assert not (tmp_path / "again").exists()
    installed.upload()
    report = make_backup(installed.settings, dest)
    assert report.manifest.blobs == 4
    assert report.linked == (4 - at[1] if at[0] == "blobs" else 1)
    assert not (dest / PARTIAL_FILE).exists()
    assert doctor_finds_nothing(restored(dest, tmp_path / "again"))


def test_an_unfinished_backup_is_no_base_for_the_next(installed: Installed, dest: Path) -> None:
    interrupted(installed, dest, ("blobs", 3))
    assert make_backup(installed.settings, dest.with_name("second")).base is None


def test_a_full_disk_leaves_no_half_blob_and_the_next_try_goes_on(
    installed: Installed, dest: Path, no_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = folder_copy.FolderCopy._copy
    brought: list[Path] = []

    def copy(self: Any, here: Path, there: Path) -> Any:
        if brought:
            there.with_name(there.name + folder_copy.TEMP_SUFFIX).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(there))
        brought.append(there)
        return real(self, here, there)

    with monkeypatch.context() as patch:
        patch.setattr(folder_copy.FolderCopy, "_copy", copy)
        with pytest.raises(OSError, match="No space left"):
            make_backup(installed.settings, dest)
    report = make_backup(installed.settings, dest)
    assert (report.copied, report.manifest.blobs) == (2, 3)
    assert not [name for name in files_below(dest) if "partial" in name]


# ---- restores ----


def refusal_of(dest: Path, folder: Path) -> BackupError:
    with pytest.raises(BackupError) as refusal:
        restored(dest, folder)
    return refusal.value


@pytest.mark.parametrize("name", [DATABASE_FILE, LIST_FILE, "blobs/segments/1"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_damaged_backup_is_refused_before_anything_is_restored(
    installed: Installed, dest: Path, tmp_path: Path, no_links: None, name: str, how: str
) -> None:
    make_backup(installed.settings, dest)
    data = (dest / name).read_bytes()
    (dest / name).unlink()
    if how == "changed":
        (dest / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refusal = refusal_of(dest, tmp_path / "again")
    assert refusal.code == "damaged" and name in refusal.message
    assert not (tmp_path / "again").exists()


def test_a_directory_with_anything_in_it_is_refused(
    installed: Installed, dest: Path, tmp_path: Path
) -> None:
    make_backup(installed.settings, dest)
    before = rows(installed.data_dir / DATABASE_FILE)
    assert refusal_of(dest, installed.data_dir).code == "not_empty"
    assert rows(installed.data_dir / DATABASE_FILE) == before


def test_a_directory_in_use_is_refused(installed: Installed, dest: Path, tmp_path: Path) -> None:
    make_backup(installed.settings, dest)
    with locked_data_dir(tmp_path / "busy"), pytest.raises(DataDirError, match="in use"):
        restored(dest, tmp_path / "busy")


def test_a_folder_that_is_no_backup_is_named_with_the_newest_one_in_it(
    installed: Installed, dest: Path, tmp_path: Path
) -> None:
    make_backup(installed.settings, dest)
    make_backup(installed.settings, dest.with_name("second"))
    refusal = refusal_of(dest.parent, tmp_path / "again")
    assert refusal.code == "no_backup" and "second" in (refusal.hint or "")
    assert refusal_of(tmp_path / "nowhere", tmp_path / "again").hint is None


@pytest.mark.parametrize(("schema", "needed"), [("9999", "a newer one"), ("0012", "that made it")])
def test_a_backup_of_a_schema_that_is_not_known_is_refused(
    installed: Installed, dest: Path, tmp_path: Path, schema: str, needed: str
) -> None:
    make_backup(installed.settings, dest)
    text = (dest / MANIFEST_FILE).read_text()
    (dest / MANIFEST_FILE).write_text(text.replace(f'"schema": "{HEAD}"', f'"schema": "{schema}"'))
    refusal = refusal_of(dest, tmp_path / "again")
    assert schema in refusal.message and needed in (refusal.hint or "")


def test_a_restore_that_was_killed_goes_on_and_no_server_starts_before(
    installed: Installed, dest: Path, tmp_path: Path
) -> None:
    make_backup(installed.settings, dest)
    again = tmp_path / "again"

    def stop(what: str, done: int, _of: int) -> None:
        if (what, done) == ("restoring", 2):
            raise Stopped

    with pytest.raises(Stopped):
        restore_backup(Settings(server=ServerSettings(data_dir=again)), dest, stop)
    assert (again / RESTORING_FILE).exists() and not (again / DATABASE_FILE).exists()
    with pytest.raises(DataDirError, match="did not end"), locked_data_dir(again):
        pass
    assert doctor_finds_nothing(restored(dest, again))


def test_a_backup_moved_to_another_disk_restores_there(
    installed: Installed, dest: Path, tmp_path: Path, no_links: None
) -> None:
    make_backup(installed.settings, dest)
    shutil.copytree(dest, tmp_path / "moved")
    shutil.rmtree(dest)
    shutil.rmtree(installed.data_dir)
    assert doctor_finds_nothing(restored(tmp_path / "moved", installed.data_dir))


def test_the_upload_secret_comes_along_unreadable_to_others(
    installed: Installed, dest: Path, tmp_path: Path
) -> None:
    secret = installed.data_dir / "upload-secret"
    secret.write_bytes(b"s" * 32)
    secret.chmod(0o600)
    make_backup(installed.settings, dest)
    back = restored(dest, tmp_path / "again") / "upload-secret"
    assert back.read_bytes() == b"s" * 32
    assert (dest / "upload-secret").stat().st_mode & 0o077 == back.stat().st_mode & 0o077 == 0


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_nobody_else_may_read_what_is_backed_up_and_restored_whatever_the_umask(
    installed: Installed, dest: Path, tmp_path: Path, open_umask: None
) -> None:
    for blob in installed.blobs.rglob("*"):
        if blob.is_file():
            blob.chmod(0o600)  # as FolderBlobs makes them; a hard link has the mode of its source
    make_backup(installed.settings, dest)
    target = tmp_path / "restored"
    restore_backup(Settings(server=ServerSettings(data_dir=target)), dest)
    for top in (dest, target):
        for path in (top, *top.rglob("*")):
            assert not path.stat().st_mode & 0o077, path


@pytest.mark.parametrize("where", ["blob", "folder", "database", "secret"])
def test_a_backup_with_a_link_in_it_is_refused_before_anything_is_restored(
    installed: Installed, dest: Path, tmp_path: Path, where: str
) -> None:
    (installed.data_dir / SECRET_FILE).write_text("ab" * 32)
    make_backup(installed.settings, dest)
    key = files_below(dest / "blobs")[0]
    place = {
        "blob": dest / "blobs" / key,
        "folder": (dest / "blobs" / key).parent,
        "database": dest / DATABASE_FILE,
        "secret": dest / SECRET_FILE,
    }[where]
    moved = place.rename(tmp_path / "elsewhere")
    place.symlink_to(moved)
    target = tmp_path / "restored"
    with pytest.raises(BackupError, match="a link"):
        restore_backup(Settings(server=ServerSettings(data_dir=target)), dest)
    assert not target.exists()
