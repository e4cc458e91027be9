"""A consistent copy of the SQLite database while others write it, and the blobs that it names.

Used by wiring/backup.py, blocking, in a process of its own. Invariant: the copy is one moment of
the database; that moment is held by a read transaction, so writers neither wait nor make the copy
begin again.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, event, func, select, union
from sqlalchemy.engine import Connection

from lowtide.store.connection.database import mapped_errors
from lowtide.store.results import KEEPS_BLOB
from lowtide.store.schema.tables import garbage

_PAGES_AT_ONCE: Final = 2048  # 8 MiB between two words on progress

OnPages = Callable[[int, int], None]


def copy_database(source: Path, target: Path, on_pages: OnPages = lambda _done, _of: None) -> None:
    """Copies into the fresh file `target`, its owner's alone. Raises StoreError, StoreFull."""
    with mapped_errors():
        target.touch(mode=0o600)
    with (
        mapped_errors(),
        closing(_opened(source)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        live.execute("BEGIN")
        live.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the moment begins here
        live.backup(
            copy,
            pages=_PAGES_AT_ONCE,
            progress=lambda _status, left, total: on_pages(total - left, total),
        )
        # Whole in one file, and read without files beside it; the server sets it back.
        copy.execute("PRAGMA journal_mode = DELETE")


def schema_of_file(path: Path) -> str:
    """The revision of the file's schema. Raises StoreError for a file that is no
    database of Lowtide.
    """
    with mapped_errors(), closing(_opened(path)) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


class NamedBlobs:
    """The blobs that a copy names, each once, sorted by key. A context manager."""

    def __init__(self, path: Path) -> None:
        engine = create_engine(f"sqlite:///{path}")

        @event.listens_for(engine, "connect")
        def _sort_on_disk(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA temp_store = FILE")  # memory must not grow with the keys

        self._engine = engine
        self._connection: Connection | None = None
        columns = [column for column in KEEPS_BLOB if column.table is not garbage]
        self._keys = union(
            *(select(c.label("key")).where(c.is_not(None), c != "") for c in columns)
        ).subquery()

    def __enter__(self) -> "NamedBlobs":
        with mapped_errors():
            self._connection = self._engine.connect()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    def count(self) -> int:
        """Raises StoreError."""
        assert self._connection is not None, "entered"
        with mapped_errors():
            return int(self._connection.scalar(select(func.count()).select_from(self._keys)) or 0)

    def __iter__(self) -> Iterator[str]:
        assert self._connection is not None, "entered"
        statement = select(self._keys.c.key).order_by(self._keys.c.key)
        with mapped_errors():
            streamed = self._connection.execution_options(stream_results=True, yield_per=1000)
            yield from streamed.scalars(statement)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
