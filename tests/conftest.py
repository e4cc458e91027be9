"""What tests of every kind share: one PostgreSQL for the whole run of a test process."""

import asyncio
from collections.abc import Iterator

import pytest

from lowtide.store.sql_store import SqlStore
from lowtide.testing.postgres import PostgresMissing, PostgresServer, running_postgres


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
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A fresh database at head."""
    with postgres.database("head") as name:
        yield postgres.url(name)
