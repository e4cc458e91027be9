"""What tests of every kind share: one PostgreSQL for the whole run of a test process."""

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from lowtide.store.sql_store import SqlStore
from property_profiles import register_profiles
from testkit.empty_database import place_empty_database
from testkit.postgres import PostgresMissing, PostgresServer, running_postgres

register_profiles()


def pytest_configure(config: pytest.Config) -> None:
    """Where Python is told to keep no bytecode, keep it for this run and in a folder of its own.

    Tests start `lowtide` a few hundred times, and a quarter of each start would go to compiling it
    anew. The processes of xdist have this environment from the first one.
    """
    if not os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        return
    folder = tempfile.mkdtemp(prefix="lowtide-bytecode-")
    os.environ["PYTHONPYCACHEPREFIX"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_sessionfinish() -> None:
    """Under `make coverage` keep now what this process saw: the first process waits ten seconds
    for the others to end, and what one that is ended then had seen was lost.
    """
    coverage = sys.modules.get("coverage")
    measuring = coverage.Coverage.current() if coverage is not None else None
    if measuring is not None:
        measuring.save()


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command called in this process may have pointed the logs at its own standard error,
    which is closed after its test.
    """
    before, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    yield
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Started by the first test that needs it; its database `head` is a template for others."""
    try:
        with running_postgres() as server:
            server.sql("CREATE DATABASE head")
            asyncio.run(_make(server.url("head")))
            yield server
    except PostgresMissing as missing:
        pytest.skip(str(missing))


async def _make(url: str) -> None:
    store = SqlStore(url)
    await store.open()
    await store.aclose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of a database that is at head and empty."""
    path = tmp_path / "lowtide.db"
    place_empty_database(path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Where a store of this kind is kept: what a second process would open, too."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A fresh database at head."""
    with postgres.database("head") as name:
        yield postgres.url(name)
