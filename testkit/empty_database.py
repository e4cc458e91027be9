"""An empty SQLite database at head, as a file: copied, where making one runs every migration.

A test or a simulated run that wants its own database calls `place_empty_database` before it opens
the store there; what is under test is then not how a schema comes to be.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from lowtide.store.sql_store import SqlStore


def place_empty_database(path: Path) -> None:
    """Write the database to `path`, where nothing is yet. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_at_head())


@cache
def _at_head() -> bytes:
    """Made once in a process, by a thread of its own: the caller may be inside an event loop."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as aside:
        path = Path(folder) / "head.db"
        aside.submit(asyncio.run, _make(path)).result()
        return path.read_bytes()


async def _make(path: Path) -> None:
    store = SqlStore.sqlite(path)
    await store.open()
    await store.aclose()
