"""What one process commits, the loops of another hear of, also after the server was away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from lowtide.loops.listen import ListenLoop
from lowtide.ports.store import StoreUnavailable
from lowtide.ports.wakeups import TOPICS, Topic
from lowtide.store.connection.database import Database
from lowtide.store.connection.notify import announce
from lowtide.store.sql_store import SqlStore
from testkit.patience import PATIENCE_S
from testkit.postgres import PostgresServer
from testkit.store_fixture import DAY_S, NOON, TTL_S, StoreFixture, outcomes


class Ear:
    """Another process, listening."""

    def __init__(self) -> None:
        self.heard: list[Topic] = []
        self._woken = asyncio.Event()

    def wake(self, topic: Topic) -> None:
        self.heard.append(topic)
        self._woken.set()

    async def hears(self, *topics: Topic) -> list[Topic]:
        """Wait until all of these were heard since the last time; all that was."""
        async with asyncio.timeout(PATIENCE_S):
            while not set(topics) <= set(self.heard):
                self._woken.clear()
                await self._woken.wait()
        heard, self.heard = self.heard, []
        return heard


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Ear]:
    ear, other = Ear(), SqlStore(url)
    task = asyncio.create_task(other.wakeups.listen(ear.wake))
    await ear.hears(*TOPICS)  # it begins with a nudge for all that was announced before
    try:
        yield ear
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await other.aclose()


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[StoreFixture]:
    store = SqlStore(postgres_url)
    yield StoreFixture(store)
    await store.aclose()


async def test_every_step_of_a_batch_wakes_who_takes_the_next(
    world: StoreFixture, postgres_url: str
) -> None:
    async with listening(postgres_url) as ear:
        batch = await world.validating()
        await ear.hears("validate")
        await world.plan(await world.validation(batch), ("m", 4), ("m", 4))
        await ear.hears("dispatch")
        first, second = await world.claim()
        await world.commit(released=[second])
        await ear.hears("dispatch")
        await world.settle(first)
        again = await world.claim_one()
        await world.settle(again)
        await ear.hears("assemble")
        await world.store.lifecycle.release_task(await world.assembly())
        await ear.hears("assemble")


async def test_what_ends_a_batch_early_wakes_workers_and_assemblers(
    world: StoreFixture, postgres_url: str
) -> None:
    cancelled = await world.running()
    await world.claim()
    expiring = await world.running(window_s=DAY_S)
    async with listening(postgres_url) as ear:
        await world.store.batches.cancel("p1", cancelled.id, world.now)
        await ear.hears("commit", "assemble")
        world.pass_time(TTL_S)
        assert await world.store.work.reap(world.now) == 1
        await ear.hears("dispatch", "assemble")
        world.pass_time(DAY_S)
        assert expiring.id in await world.store.lifecycle.expire_due(world.now)
        await ear.hears("commit", "assemble")


async def test_nothing_is_heard_of_a_transaction_that_is_undone(postgres_url: str) -> None:
    database = Database(postgres_url)
    async with listening(postgres_url) as ear:
        with pytest.raises(ZeroDivisionError):
            async with database.write() as conn:
                await announce(conn, "validate")
                raise ZeroDivisionError
        async with database.write() as conn:
            await announce(conn, "assemble")
        assert await ear.hears("assemble") == ["assemble"]
    await database.aclose()


async def test_a_listener_that_was_cut_off_says_so_and_cannot_return_before_the_server(
    postgres: PostgresServer, postgres_url: str
) -> None:
    store, ear = SqlStore(postgres_url), Ear()
    task = asyncio.create_task(store.wakeups.listen(ear.wake))
    await ear.hears(*TOPICS)
    postgres.kill()
    try:
        assert await asyncio.wait_for(task, PATIENCE_S) is True
        with pytest.raises(StoreUnavailable):
            await store.wakeups.listen(ear.wake)
    finally:
        postgres.start()
    async with listening(postgres_url):
        pass
    await store.aclose()


async def test_one_process_alone_has_nobody_to_hear(tmp_path: Path) -> None:
    store = SqlStore.sqlite(tmp_path / "lowtide.db")
    await store.open()
    assert await store.wakeups.listen(lambda _: None) is False
    await store.aclose()


class Line:
    """Wakeups that end, as told."""

    def __init__(self, again: bool) -> None:
        self.again = again

    async def listen(self, wake: Callable[[Topic], None]) -> bool:
        wake("validate")
        return self.again


async def test_the_loop_listens_anew_while_there_is_somebody_to_hear() -> None:
    woken: list[str] = []
    assert await ListenLoop(Line(True), woken.append).tick(NOON) == NOON
    assert await ListenLoop(Line(False), woken.append).tick(NOON) is None
    assert woken == ["validate", "validate"]


async def test_one_beat_of_many_says_each_thing_once(
    world: StoreFixture, postgres_url: str
) -> None:
    """PostgreSQL folds what one transaction repeats: a nudge is a nudge."""
    await world.running(("m", 4), ("m", 4), ("m", 4))
    leases = await world.claim()
    async with listening(postgres_url) as ear:
        await world.commit(*(outcomes(lease) for lease in leases))
        assert await ear.hears("assemble") == ["assemble"]
