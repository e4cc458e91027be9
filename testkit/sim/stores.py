"""The databases of simulated worlds: one file, made anew for each run, and a store per process."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lowtide.store.sql_store import SqlStore
from testkit.sim import inline_sqlite
from testkit.sim.loop import VirtualLoop

PROCESSES_MAX: Final = 5
"""Four workers and the API."""


class Stores:
    """SqlStores over one database file, kept from run to run: compiled statements are costly.

    Each process has one of its own. A new life, and a new run, begin with empty pools.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sim.db"
        self._head = folder / "head.db"
        self._stores: list[SqlStore] = []

    def renew(self) -> None:
        """A fresh database at head under the same path."""
        if not self._stores:
            self._begin()
        self.remove()  # a connection left open must not see the new one
        shutil.copyfile(self._head, self.path)

    def remove(self) -> None:
        """The database, with all that lies beside it."""
        for suffix in ("-wal", "-shm", ""):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def of(self, place: int) -> SqlStore:
        """The store of the process at that place, without connections."""
        store = self._stores[place]
        _forget_connections(store)
        return store

    def _begin(self) -> None:
        """Make all that is made once: what a first connection asks would count as steps later."""
        for path in (self._head, self.path):
            inline_sqlite.gates[str(path)] = lambda _moment, _statement: None
            inline_sqlite.commits[str(path)] = lambda: None

        async def begin() -> None:
            head = SqlStore(f"sqlite+inline:///{self._head}")
            await head.open()
            await head.aclose()
            shutil.copyfile(self._head, self.path)
            for _ in range(PROCESSES_MAX):
                store = SqlStore(f"sqlite+inline:///{self.path}")
                await store.open()
                await store.files.get("", "")
                await store.aclose()
                self._stores.append(store)

        VirtualLoop().run_until_complete(begin())


def _forget_connections(store: SqlStore) -> None:
    """Forgets connections that are closed already, or a dead process's."""
    for engine in (store._db._writer, store._db._reader):
        engine.sync_engine.dispose(close=False)


@contextmanager
def sim_folder() -> Iterator[Path]:
    """A folder for databases: in memory where the system has such a folder; gone when left."""
    shared = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="lowtide-sim-", dir=shared if shared.is_dir() else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)
