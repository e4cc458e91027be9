"""A fresh SQLite database for each test of the adapter's own parts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lowtide.store.connection.database import Database
from lowtide.store.schema.migrate import bring_to_head


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lowtide.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite+aiosqlite:///{path}")
    await bring_to_head(database)
    yield database
    await database.aclose()
