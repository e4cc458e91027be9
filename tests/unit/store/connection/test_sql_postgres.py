"""What only PostgreSQL does: its settings, its errors, its plans, its clock."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Select, exc, insert, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from lowtide import limits
from lowtide.config import ServerSettings, Settings
from lowtide.config.sources import ConfigError
from lowtide.ports.store import StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from lowtide.store.connection.database import (
    Database,
    StoreConflict,
    StoreCut,
    _cut_mapped,
    mapped_errors,
    transactional,
)
from lowtide.store.connection.postgres import _SETTINGS, connector, driver_errors
from lowtide.store.schema.fitness import is_pooled
from lowtide.store.schema.tables import HEAD, garbage, metadata
from lowtide.store.sql_store import SqlStore
from lowtide.store.statements.claims import first_waiting
from lowtide.system import SystemClock
from lowtide.wiring.database import check_server, store_of
from testkit.patience import PATIENCE_S
from testkit.postgres import USER, PostgresServer
from testkit.store_fixture import NOON

CHUNKS = 100_000
FILL = f"""
INSERT INTO batches SELECT (jsonb_populate_record(null::batches, to_jsonb(b) || jsonb_build_object(
    'id', 'batch_' || n))).* FROM batches b, generate_series(1, 99) n WHERE b.id = 'batch_0';
INSERT INTO chunks SELECT b.id, s, 'org_' || (s % 5), 'waiting', 'm' || (s % 4), 0, b.expires_at,
    b.created_at, s * 128, 128, 1000, 1000, decode(repeat('00', 16), 'hex'), 0, NULL, 0, NULL,
    128
    FROM batches b, generate_series(0, {CHUNKS // 100 - 1}) s;
ANALYZE
"""
ONE_BATCH = """
INSERT INTO batches (id, organization_id, project_id, user_id, dialect, input_file_id, input_bytes,
    input_key, endpoint, status, completion_window_s, metadata, priority, created_at, expires_at,
    total, completed, failed, input_tokens, cached_tokens, output_tokens, reasoning_tokens, errors,
    errors_total, digest, results_seq, task_token, unreported, warnings)
VALUES ('batch_0', 'org_default', 'p', 'u', 'openai', 'f', 1, 'k', '/v1/chat/completions',
    'in_progress', 86400, '{}', 0, 1, 2, 128000, 0, 0, 0, 0, 0, 0, '[]', 0, 'd', 0, 0, 0, '[]')
"""


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    database = Database(postgres_url)
    yield database
    await database.aclose()


# ---- the queue


async def explained(database: Database, statement: Select[Any]) -> str:
    words = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    async with database.read() as conn:
        return "\n".join((await conn.scalars(text(f"EXPLAIN {words}"))).all())


async def test_a_claim_reads_the_head_of_the_queue_and_sorts_nothing(
    database: Database,
    postgres: PostgresServer,
    postgres_url: str,
) -> None:
    name = postgres_url.partition("@/")[2].partition("?")[0]
    postgres.sql(ONE_BATCH, *FILL.split(";"), database=name)
    plan = await explained(database, first_waiting("m1", 32, "org_1"))
    assert "Index Scan using chunks_waiting_by_organization on chunks" in plan, plan
    assert "Sort" not in plan and "Seq Scan" not in plan, plan


# ---- the border


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", StoreFull),
        ("53300", StoreUnavailable),
        ("57P03", StoreUnavailable),
        ("25006", StoreUnavailable),
        ("58030", StoreUnavailable),
        ("40P01", StoreConflict),
        ("40001", StoreConflict),
        ("23505", StoreError),
        ("42P01", StoreError),
    ],
)
async def test_what_the_server_says_becomes_the_ports_own(
    database: Database, state: str, kind: type[StoreError]
) -> None:
    with pytest.raises(StoreError) as caught:
        async with database.write() as conn:
            await conn.execute(
                text(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{state}'; END $$")
            )
    assert type(caught.value) is kind
    assert "so it is" in str(caught.value)


async def test_a_connection_that_is_cut_is_replaced(database: Database) -> None:
    with pytest.raises(StoreUnavailable):
        async with database.write() as conn:
            await conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    async with database.read() as conn:
        assert await conn.scalar(text("SELECT 1")) == 1


async def test_a_statement_and_a_lock_that_take_too_long_are_given_up(postgres_url: str) -> None:
    hasty = Database(f"{postgres_url}&statement_timeout=500&lock_timeout=250")
    with pytest.raises(StoreUnavailable, match="statement timeout"):
        async with hasty.read() as conn:
            await conn.execute(text("SELECT pg_sleep(30)"))
    lock = text("SELECT pg_advisory_xact_lock(1)")
    async with hasty.write() as holder:
        await holder.execute(lock)
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            async with hasty.write() as other:
                await other.execute(lock)
    await hasty.aclose()


async def test_a_reader_cannot_write_and_sees_one_moment(database: Database) -> None:
    count = text("SELECT count(*) FROM projects")
    add = text("INSERT INTO projects VALUES ('p', 'org_default', 'p', 0)")
    async with database.read() as reader:
        before = await reader.scalar(count)
        async with database.write() as writer:
            await writer.execute(add)
        assert await reader.scalar(count) == before
    with pytest.raises(StoreUnavailable, match="read-only"):
        async with database.read() as reader:
            await reader.execute(add)


@transactional
class Crossing:
    """Two transactions that lock two names in opposite orders, and so deadlock at first."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._both = asyncio.Barrier(2)
        self.tries = 0

    async def cross(self, *names: int) -> None:
        self.tries += 1
        met = self.tries > 2
        async with self._db.write() as conn:
            for name in names:
                await conn.execute(text(f"SELECT pg_advisory_xact_lock({name})"))
                if not met:
                    met = await self._both.wait() >= 0


async def test_of_two_in_a_deadlock_one_runs_again(database: Database) -> None:
    crossing = Crossing(database)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(crossing.cross(1, 2), crossing.cross(2, 1))
    assert crossing.tries == 3


@transactional
class Hopeless:
    tries = 0

    async def go(self) -> None:
        self.tries += 1
        raise StoreConflict("again")


async def test_who_is_always_in_the_way_is_told_so() -> None:
    hopeless = Hopeless()
    with pytest.raises(StoreUnavailable):
        await hopeless.go()
    assert hopeless.tries == 5


@transactional
class Slow:
    """A transaction whose process stands still between two statements, `stalls` times."""

    def __init__(self, database: Database, stalls: int) -> None:
        self._db = database
        self._stalls = stalls
        self.tries = 0

    async def write(self) -> None:
        async with self._db.write() as conn:
            await conn.execute(text("INSERT INTO projects VALUES ('p', 'org_default', 'p', 0)"))
            await self._stall(conn)

    async def read(self) -> int:
        async with self._db.read() as conn:
            await self._stall(conn)
            count = text("SELECT count(*) FROM projects WHERE id = 'p'")
            return int((await conn.scalar(count)) or 0)

    async def _stall(self, conn: AsyncConnection) -> None:
        self.tries += 1
        if self.tries <= self._stalls:
            # As the server does to a session that is idle inside a transaction.
            await conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


@pytest.mark.parametrize("method", ["write", "read"])
async def test_a_transaction_whose_session_was_ended_runs_once_more(
    database: Database, method: str
) -> None:
    slow = Slow(database, stalls=1)
    await getattr(slow, method)()
    assert slow.tries == 2
    assert await Slow(database, stalls=0).read() == (1 if method == "write" else 0)


async def test_a_session_that_is_ended_again_and_again_is_told(database: Database) -> None:
    slow = Slow(database, stalls=9)
    with pytest.raises(StoreUnavailable, match="ended the session"):
        await slow.write()
    assert slow.tries == 2


async def test_a_process_that_stood_still_inside_a_transaction_runs_it_once_more(
    database: Database, postgres: PostgresServer
) -> None:
    @transactional
    class Still:
        tries = 0

        async def go(self) -> int:
            self.tries += 1
            async with database.read() as conn:
                pid = await conn.scalar(text("SELECT pg_backend_pid()"))
                gone = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"
                if (
                    self.tries == 1
                ):  # nothing of this process runs until the server has lost patience
                    while postgres.sql(gone):
                        pass
                else:
                    await conn.execute(text("SET idle_in_transaction_session_timeout = 0"))
                return int((await conn.scalar(text("SELECT 1"))) or 0)

    still = Still()
    assert await still.go() == 1
    assert still.tries == 2


async def test_a_connection_that_is_lost_at_the_commit_is_not_tried_again(
    database: Database, postgres: PostgresServer
) -> None:
    @transactional
    class Unsure:
        tries = 0

        async def go(self) -> None:
            self.tries += 1
            async with database.write() as conn:
                pid = await conn.scalar(text("SELECT pg_backend_pid()"))
                postgres.sql(f"SELECT pg_terminate_backend({pid}, 60000)")

    unsure = Unsure()
    with pytest.raises(StoreUnavailable) as reported:
        await unsure.go()
    assert type(reported.value) is StoreUnavailable
    assert unsure.tries == 1


async def test_a_network_that_swallows_all_is_not_waited_for_twice() -> None:
    silence = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle")
    silence.__cause__ = TimeoutError(110, "Connection timed out")
    orig = Exception("as SQLAlchemy wraps it")
    orig.__cause__ = silence
    with pytest.raises(exc.DBAPIError), _cut_mapped():
        raise exc.DBAPIError("SELECT 1", {}, orig, connection_invalidated=True)
    silence.__cause__ = ConnectionResetError()
    with pytest.raises(StoreCut), _cut_mapped():
        raise exc.DBAPIError("SELECT 1", {}, orig, connection_invalidated=True)
    orig.__cause__ = asyncpg.InternalClientError("another operation (2) is in progress")
    with pytest.raises(StoreCut), _cut_mapped():
        raise exc.DBAPIError("SELECT 1", {}, orig)
    orig.__cause__ = asyncpg.UniqueViolationError("twice")
    with pytest.raises(exc.DBAPIError), _cut_mapped():
        raise exc.DBAPIError("SELECT 1", {}, orig)


# ---- addresses


def test_an_address_is_shown_without_its_secrets() -> None:
    url = "postgresql://me:secret@h1:5432,h2/db?sslmode=require&passfile=/f"
    shown = "postgresql://me:***@h1:5432,h2/db?sslmode=require&passfile=***"
    assert Database(url).name == shown


async def test_a_database_that_is_not_there_is_named_in_the_refusal(
    postgres: PostgresServer,
) -> None:
    store = SqlStore(postgres.url("nowhere"))
    with pytest.raises(StoreError, match=r"cannot open the database .*nowhere.* does not exist"):
        await store.open()


async def test_a_server_that_is_not_there_is_named_in_the_refusal(tmp_path: Any) -> None:
    store = SqlStore(f"postgresql://me:secret@/db?host={tmp_path}")
    with pytest.raises(StoreError, match=r"cannot open the database postgresql://me:\*\*\*") as no:
        await store.open()
    assert "secret" not in str(no.value)


@pytest.mark.parametrize(
    "address",
    [
        "h:port/db",
        "u:pa55/w0rd@h/db",
        "u:pa55#w0rd@h/db",
        "u:[pa55]w0rd@h/db",
        "u:pa55@w0rd@h/db",
        "u:1/w0rd@h/db",
        "u:pa55?w0rd@h/db",
    ],
)
async def test_an_address_that_cannot_be_read_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(StoreError, match="special characters") as refused:
        await SqlStore(f"postgresql://{address}").open()
    assert "pa55" not in str(refused.value)
    assert "w0rd" not in str(refused.value)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sslmode=verify-full", "the file of authorities to trust"),
        ("sslmode=verify-full&sslrootcert=/pa55/w0rd", "names as sslrootcert is not there"),
        ("sslmode=require&sslkey=/pa55/w0rd", "names as sslkey is not there"),
        ("sslmode=pa55w0rd", "sslmode in server.database_url must be disable, allow"),
    ],
)
async def test_what_is_wrong_beside_the_address_is_not_called_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str, words: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    reported = await refused_at_the_start(f"postgresql://u@127.0.0.1:9/db?{query}")
    assert words in reported
    assert "special characters" not in reported
    assert "pa55" not in reported and "w0rd" not in reported


@pytest.mark.parametrize("url", ["mysql://h/db", "postgres", "sqlite:///x"])
def test_another_kind_of_database_is_a_mistake_in_the_settings(url: str) -> None:
    with pytest.raises(ConfigError, match="database_url"):
        store_of(Settings(server=ServerSettings(database_url=url)))


def test_a_missing_driver_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "asyncpg", None)
    with pytest.raises(ConfigError, match=r"pip install 'lowtide\[postgres\]'"):
        store_of(Settings(server=ServerSettings(database_url="postgresql://h/db")))


# ---- whether it is fit for work


async def refused_at_the_start(url: str) -> str:
    store = SqlStore(url)
    with pytest.raises(StoreError) as refused:
        await store.open()
    return str(refused.value)


async def test_a_database_that_cannot_hold_all_text_is_refused(postgres: PostgresServer) -> None:
    create = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    postgres.sql(create)
    try:
        reported = await refused_at_the_start(postgres.url("latin"))
    finally:
        postgres.sql("DROP DATABASE latin WITH (FORCE)")
    assert "has the encoding LATIN1" in reported
    assert "ENCODING 'UTF8'" in reported


async def test_a_database_that_takes_no_writes_is_refused(
    postgres: PostgresServer, postgres_url: str
) -> None:
    url = f"{postgres_url}&default_transaction_read_only=on"
    assert "the database is read-only" in await refused_at_the_start(url)
    store = SqlStore(url)
    with pytest.raises(StoreReadOnly):
        await store.check_writable()
    await store.aclose()


async def test_a_user_that_may_create_no_tables_is_refused_with_what_to_grant(
    postgres: PostgresServer,
) -> None:
    postgres.sql("CREATE ROLE weak LOGIN")
    try:
        with postgres.database() as name:
            url = postgres.url(name).replace(f"//{USER}@", "//weak@")
            assert "GRANT USAGE, CREATE ON SCHEMA" in await refused_at_the_start(url)
    finally:
        postgres.sql("DROP ROLE weak")


class Session:
    """A session that a pooler hands to one of its server processes, transaction by transaction."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids
        self.is_closed = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield

    async def fetchval(self, _: str) -> int:
        return self.pids.pop(0)

    def terminate(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("first", "second", "pooled"),
    [
        ([7, 7, 7], [8, 8, 8], False),
        ([7, 7, 7], [7, 7, 7], True),
        ([7, 8, 7], [9, 9, 9], True),
        ([7, 7, 7], [8, 8, 7], True),
    ],
)
async def test_a_pooler_that_shares_sessions_is_found_by_its_server_processes(
    first: list[int], second: list[int], pooled: bool
) -> None:
    sessions = [Session(first), Session(second)]
    opening = iter(sessions)

    async def connect() -> Session:
        return next(opening)

    assert await is_pooled(connect) is pooled
    assert all(session.is_closed for session in sessions)


async def test_a_server_that_is_asked_directly_shares_no_sessions(postgres_url: str) -> None:
    assert not await is_pooled(connector(postgres_url))


async def test_a_pooler_that_refuses_settings_is_told_with_what_to_set() -> None:
    with pytest.raises(StoreError, match="ignore_startup_parameters"), driver_errors():
        raise asyncpg.ProtocolViolationError("unsupported startup parameter: statement_timeout")


# ---- what it says of itself


async def test_the_facts_of_a_server_are_read_and_nothing_is_changed(
    postgres: PostgresServer,
) -> None:
    with postgres.database() as name:
        store = SqlStore(postgres.url(name))
        facts = await store.facts(SystemClock())
        assert facts.schema is None and facts.server.startswith("PostgreSQL 1")
        assert facts.unsafe == ("fsync = off", "full_page_writes = off")
        assert not facts.is_standby
        assert abs(facts.clock_ahead_s) < 5
        await store.open()
        assert (await store.facts(SystemClock())).schema == HEAD
        await store.aclose()


class Skewed(SystemClock):
    def __init__(self, ahead_s: float) -> None:
        self._ahead = timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return super().now() + self._ahead


@pytest.mark.parametrize("ahead_s", [60, -60])
async def test_a_clock_far_from_the_databases_is_refused_with_what_to_do(
    postgres_url: str, ahead_s: float
) -> None:
    store = SqlStore(postgres_url)
    skewed = Skewed(ahead_s)
    side = "ahead of" if ahead_s > 0 else "behind"
    with pytest.raises(StoreError, match=rf"clock is .* s {side} the database's.*NTP"):
        await check_server(store, skewed, lease_ttl_s=30)
    await check_server(store, skewed, lease_ttl_s=180)
    await store.aclose()


async def test_stores_that_open_an_empty_database_together_migrate_it_once(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with postgres.database() as name:
        stores = [SqlStore(postgres.url(name)) for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        for store in stores:
            assert await store.files.page("p", after=None, limit=1) == []
            await store.aclose()
        assert postgres.sql("SELECT version_num FROM alembic_version", database=name) == f"{HEAD}\n"


# ---- the schema


CATALOGUE = """
SELECT 'column', table_name, column_name, data_type, is_nullable, collation_name
    FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'index', tablename, indexname, indexdef, '', ''
    FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
"""


def catalogue(postgres: PostgresServer, name: str) -> set[str]:
    lines = postgres.sql(" ".join(CATALOGUE.split()), database=name).splitlines()
    return {line for line in lines if "alembic_version" not in line}


def make_all(url: str) -> Any:
    async def make() -> None:
        database = Database(url)
        async with database.write() as conn:
            await conn.run_sync(metadata.create_all)
        await database.aclose()

    return make()


async def test_the_migrations_make_exactly_the_tables_that_statements_use(
    postgres: PostgresServer,
) -> None:
    with postgres.database("head") as migrated, postgres.database() as made:
        await make_all(postgres.url(made))
        assert catalogue(postgres, migrated) == catalogue(postgres, made)
        assert len(catalogue(postgres, made)) > 150


async def test_alembic_sees_nothing_to_migrate(database: Database) -> None:
    def difference(sync: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(sync), metadata))

    async with database.read() as conn:
        assert await conn.run_sync(difference) == []


async def test_words_sort_by_their_bytes_whatever_the_databases_locale(database: Database) -> None:
    words = ["a", "B", "_", "é", "Z", "-"]
    async with database.write() as conn:
        rows = [{"blob_key": word, "added_at": NOON} for word in words]
        await conn.execute(insert(garbage), rows)
        in_order = select(garbage.c.blob_key).order_by(garbage.c.blob_key)
        assert list(await conn.scalars(in_order)) == sorted(words)


def test_a_connection_that_ends_under_a_statement_is_no_error_of_ours() -> None:
    """asyncpg lost track: "cannot switch to state 15; another operation (2) is in progress"."""
    with pytest.raises(StoreUnavailable, match="in progress"), mapped_errors():
        raise asyncpg.InternalClientError("another operation (2) is in progress")


async def test_who_falls_silent_in_a_transaction_loses_its_locks_before_its_leases_end(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a host does whose link is cut between two statements: others wait for what it locked."""
    assert limits.STORE_IDLE_S < limits.LEASE_TTL_S / 2
    monkeypatch.setitem(_SETTINGS, "idle_in_transaction_session_timeout", "100")
    silent, other = [await connector(postgres_url)() for _ in range(2)]
    lock = "SELECT pg_advisory_xact_lock(1)"
    try:
        await silent.execute("BEGIN")
        await silent.execute(lock)
        await asyncio.wait_for(other.execute(lock), PATIENCE_S)
        reported = (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
        )
        with pytest.raises(reported):
            await silent.execute("SELECT 1")
    finally:
        silent.terminate()
        await other.close()


async def test_a_connection_on_which_nothing_is_taken_is_ended_by_the_kernel(
    postgres_url: str,
) -> None:
    """The server of the tests has a Unix socket only, so a relay gives it a port."""
    folder = parse_qs(urlsplit(postgres_url).query)["host"][0]
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is None:
        pytest.skip("the kernel has no such option")
    async with relayed(f"{folder}/.s.PGSQL.5432") as port:
        name = urlsplit(postgres_url).path
        address = f"postgresql://{USER}@127.0.0.1:{port}{name}?sslmode=disable"
        connection = await connector(address)()
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, option) == limits.STORE_CONNECT_S * 1000
        await connection.close()


@asynccontextmanager
async def relayed(place: str) -> AsyncIterator[int]:
    """A port behind which lies the Unix socket at `place`."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(place)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
