"""The checks behind `lowtide doctor`, each a function from settings to a finding.

A finding says what is and, where something is wrong, what would repair it. Invariant: nothing is
changed. A data directory that is not there is not made, a database is not migrated; blobs are
probed by a write that is taken back.
"""

import asyncio
import importlib.metadata
import os
import shlex
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx

from lowtide import limits
from lowtide.blobs.url import open_blobs
from lowtide.cli.doctor.finding import Finding
from lowtide.cli.doctor.postgres import check_postgres
from lowtide.cli.server.listening import address_at, bind
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.cli.terminal.units import human_bytes, human_seconds, plural
from lowtide.config import DEFAULT_FILE, SYSTEM_FILE, Settings
from lowtide.core.reporting.shown_url import shown_url
from lowtide.data_dir import (
    LOCK_FILE,
    RESTORING_FILE,
    DataDirError,
    DataDirInUse,
    locked_data_dir,
)
from lowtide.ports.blobs import BlobError
from lowtide.store.schema.compatibility import refusal
from lowtide.store.schema.tables import HEAD
from lowtide.wiring.database import is_single_machine


def check_config(settings: Settings, config_file: Path | None) -> Finding:
    """The finding on the settings' source; their values were checked by reading them."""
    source = f"defaults; there is no ./{DEFAULT_FILE} and no {SYSTEM_FILE}"
    if config_file is not None:
        source = f"read from {config_file}"
    replicas = plural(len(settings.replica), "replica")
    served = {name for replica in settings.replica for name in replica.models}
    models = plural(len(served), "model")
    return Finding("config", "ok", f"{source}; {replicas}, {models}")


def check_data_dir(settings: Settings) -> list[Finding]:
    """The findings on the data directory: it exists or can be made, is writable, has
    space, and its owner.
    """
    path = settings.server.data_dir.absolute()
    place = path
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        remedy = "Choose another with --data-dir or server.data_dir."
        return [Finding("data dir", "fail", f"{place} is a file, not a folder", remedy)]
    if not os.access(place, os.W_OK | os.X_OK):
        remedy = "Make it writable for this user, or choose another with --data-dir."
        return [Finding("data dir", "fail", f"{place} is not writable", remedy)]
    finding = Finding("data dir", "ok", f"{path}, writable")
    if path != place:
        finding = Finding("data dir", "ok", f"{path} will be made at the first start")
    elif mode := path.stat().st_mode & 0o077:
        what = f"{path} is open to other users of this machine (mode {0o700 | mode:o})"
        remedy = f"It holds every tenant's texts: chmod -R go= {shlex.quote(str(path))}"
        finding = Finding("data dir", "warn", what, remedy)
    return [finding, _check_space(place), *_check_lock(path)]


def _check_space(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    what = f"{human_bytes(free)} free on the disk of the data dir"
    remedy = "Make room: results that cannot be stored stop all work."
    if free < limits.DISK_FREE_BYTES_MIN:
        return Finding("space", "fail", what, remedy)
    if free < limits.DISK_FREE_BYTES_LOW:
        return Finding("space", "warn", what, remedy)
    return Finding("space", "ok", what)


def _check_lock(path: Path) -> list[Finding]:
    if (path / RESTORING_FILE).exists():
        what = f"{path} holds a restore that did not end"
        remedy = "Run the same `lowtide restore` again; it goes on where it stopped."
        return [Finding("lock", "fail", what, remedy)]
    if not (path / LOCK_FILE).exists():
        return []
    try:
        with locked_data_dir(path):
            return [Finding("lock", "ok", "no Lowtide is running on this data dir")]
    except DataDirInUse as error:
        return [Finding("lock", "ok", f"a Lowtide runs on it (process {error.owner})")]
    except DataDirError as error:
        return [Finding("lock", "warn", str(error), "Make it usable, or choose another.")]


async def check_store(settings: Settings) -> Finding:
    """The finding on the database: it can be read, is whole, and has a schema that
    this version knows.
    """
    if not is_single_machine(settings):
        return await check_postgres(settings)
    path = settings.server.data_dir.absolute() / "lowtide.db"
    if not path.exists():
        return Finding("store", "ok", "a new SQLite database will be made at the first start")
    return await asyncio.to_thread(_check_sqlite, path)


def _check_sqlite(path: Path) -> Finding:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            state = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
            version = str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])
            asks = "SELECT least_code FROM schema_compatibility"
            least = database.execute(asks).fetchone() if version > HEAD else None
    except sqlite3.Error as error:
        remedy = "Restore a backup, or move the data dir away to begin anew."
        return Finding("store", "fail", f"{path} cannot be read: {error}", remedy)
    if state != "ok":
        return Finding("store", "fail", f"{path} is damaged: {state}", "Restore a backup.")
    what = f"SQLite, schema {version}"
    refused = refusal(version, least[0] if least else None)
    if refused is not None:
        return Finding("store", "fail", refused.what, refused.remedy)
    if version > HEAD:
        what += f", newer than this version's {HEAD} and fit for it"
    if version < HEAD:
        remedy = "The next start will bring it up to date; back it up before."
        return Finding("store", "warn", f"{what}, this version has {HEAD}", remedy)
    return Finding("store", "ok", what)


async def check_blobs(settings: Settings) -> Finding:
    """The finding on the object store: writing works and create-only is honoured."""
    url, folder = settings.server.blob_url, settings.server.data_dir.absolute() / "blobs"
    if url == "file" and not folder.exists():
        return Finding("blobs", "ok", "a folder will be made at the first start")
    started = time.monotonic()
    try:
        await open_blobs(url, folder).probe()
    except ValueError as error:
        return Finding("blobs", "fail", str(error), "Correct server.blob_url.")
    except BlobError as error:
        remedy = "Check server.blob_url, its credentials, and that writing is allowed."
        return Finding("blobs", "fail", str(error), remedy)
    took = human_seconds(time.monotonic() - started)
    where = str(folder) if url == "file" else shown_url(url)
    return Finding("blobs", "ok", f"{where}: writes are create-only (probed in {took})")


def check_port(settings: Settings) -> Finding:
    """Whether `serve` could listen, or does already on this data directory."""
    host, port = settings.server.host, settings.server.port
    try:
        bind(host, port).close()
    except CommandError as error:
        address = address_at(host, port)
        if error.code == "port_in_use" and _is_lowtide(address):
            if _is_in_use(settings.server.data_dir):
                return Finding("port", "ok", f"Lowtide answers at {address}")
            what = f"another Lowtide, which has another data dir, answers at {address}"
            return Finding("port", "warn", what, "Choose another with --port.")
        return Finding("port", "warn", error.message, "Choose another with --port.")
    return Finding("port", "ok", f"{host} port {port} is free")


def _is_in_use(data_dir: Path) -> bool:
    """Returns whether a Lowtide runs on it. Makes no folder."""
    try:
        if (data_dir / LOCK_FILE).exists():
            with locked_data_dir(data_dir):
                pass
    except DataDirInUse:
        return True
    except DataDirError:
        pass
    return False


def _is_lowtide(address: str) -> bool:
    """Returns whether what listens there answers a probe as Lowtide does."""
    try:
        with httpx.Client(trust_env=False, timeout=limits.CLIENT_CONNECT_TIMEOUT_S) as client:
            return bool(client.get(f"{address}/health").json() == {"status": "ok"})
    except (httpx.HTTPError, ValueError):
        return False


def check_embedded_engine() -> Finding:
    """The finding on whether the wheel behind --model can be loaded on this machine."""
    try:
        import xllamacpp  # type: ignore[import-untyped]
    except (ImportError, OSError) as error:
        remedy = "--model will not work; replicas are not affected. Install xllamacpp again."
        return Finding("engine", "warn", f"the embedded engine does not load: {error}", remedy)
    version = importlib.metadata.version(xllamacpp.__name__)
    return Finding("engine", "ok", f"embedded llama.cpp (xllamacpp {version}) loads")
