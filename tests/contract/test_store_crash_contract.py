"""Contract of the store under crashes: what had returned is there, what had not is not, at all."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from lowtide.core.batches.batch import Batch, Counts
from lowtide.ports.store import StoreUnavailable
from lowtide.store.sql_store import SqlStore
from testkit.postgres import PostgresServer
from testkit.store_fixture import TTL_S, StoreFixture, keys, outcomes


def image_of(store_url: str, folder: Path) -> str:
    """The database as a crash at this instant would leave it: its files, copied while open."""
    path = Path(make_url(store_url).database or "")
    for file in path.parent.glob(f"{path.name}*"):
        if not file.name.endswith("-shm"):  # memory of the dead process
            shutil.copyfile(file, folder / file.name)
    return f"sqlite+aiosqlite:///{folder / path.name}"


@pytest.fixture
def crash(store_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Let the database crash; where it can be opened afterwards."""

    def image() -> str:
        folder = tmp_path / "crashed"
        folder.mkdir()
        return image_of(store_url, folder)

    def restart() -> str:
        server: PostgresServer = request.getfixturevalue("postgres")
        server.kill()
        server.start()
        return store_url

    return restart if store_url.startswith("postgresql") else image


async def reopened(world: StoreFixture, store_url: str) -> StoreFixture:
    store = SqlStore(store_url)
    await store.open()
    after = StoreFixture(store)
    after.now = world.now
    return after


async def check_sums(world: StoreFixture, batch: Batch) -> Counts:
    """Counts, usage and slices tell the same."""
    seen = await world.see(batch)
    rows = await world.store.results.slices(batch.id)
    assert [row.seq for row in rows] == list(range(len(rows)))
    assert sum(row.completed for row in rows) == seen.counts.completed
    assert sum(row.failed for row in rows) == seen.counts.failed
    assert seen.usage.input_tokens == 10 * seen.counts.completed
    return seen.counts


async def test_what_had_returned_survives_the_crash(
    world: StoreFixture, crash: Callable[[], str]
) -> None:
    batch = await world.running(("m", 4), ("m", 2))
    first, second = await world.claim()
    await world.commit(outcomes(first, [0, 1], failed=[1]), held=[first, second])
    after = await reopened(world, crash())
    try:
        assert await check_sums(after, batch) == Counts(6, 1, 1)
        assert await after.claim() == [], "leases of the dead hold until they run out"
        after.pass_time(TTL_S)
        assert await after.store.work.reap(after.now) == 2
        again, other = await after.claim(worker="w2")
        assert keys([again, other]) == keys([first, second])
        receipt = await after.commit(outcomes(again, [2, 3]), outcomes(other), worker="w2")
        assert receipt.settled == {batch.id}
        assert (await after.assemble(batch)).counts == Counts(6, 5, 1)
    finally:
        await after.store.aclose()


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_a_crash_amid_a_beat_leaves_none_of_it(
    world: StoreFixture, store_url: str, tmp_path_factory
) -> None:
    """Images taken all through a large commit show the batch before it or after it."""
    batch = await world.running(*[("m", 32)] * 20)
    leases = await world.claim()
    beat = world.beat(*(outcomes(lease, range(16)) for lease in leases), held=leases)
    committing = asyncio.create_task(world.store.work.commit_group(beat))
    images = []
    while not committing.done():
        images.append(image_of(store_url, tmp_path_factory.mktemp("crashed")))
        for _ in range(5):
            await asyncio.sleep(0)
    await committing
    images.append(image_of(store_url, tmp_path_factory.mktemp("crashed")))
    settled = set()
    for image in images[:: max(1, len(images) // 10)] + images[-1:]:
        after = await reopened(world, image)
        settled.add((await check_sums(after, batch)).settled)
        await after.store.aclose()
    assert settled <= {0, 320}
    assert 320 in settled


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)
async def test_a_server_that_crashes_amid_a_beat_keeps_all_or_none_of_it(
    world: StoreFixture, postgres: PostgresServer
) -> None:
    """The store stays open: it finds its connections dead and makes new ones."""
    batch = await world.running(*[("m", 32)] * 20)
    leases = await world.claim()
    for index, moments in enumerate((0, 20, 60, 120, 200, 300)):
        before = (await check_sums(world, batch)).settled
        beat = world.beat(*(outcomes(lease, [index]) for lease in leases), held=leases)
        committing = asyncio.create_task(world.store.work.commit_group(beat))
        for _ in range(moments):
            await asyncio.sleep(0)
        postgres.kill()
        lost = isinstance((await asyncio.gather(committing, return_exceptions=True))[0], Exception)
        postgres.start()
        settled = (await check_sums(world, batch)).settled
        assert settled in ((before, before + 20) if lost else (before + 20,))
        assert not (await world.store.work.commit_group(beat)).lost, "sent again as it was"
        assert (await check_sums(world, batch)).settled == before + 20


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)
async def test_while_its_server_is_away_a_store_says_so(
    world: StoreFixture, postgres: PostgresServer
) -> None:
    batch = await world.running()
    postgres.stop()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await world.see(batch)
            with pytest.raises(StoreUnavailable):
                await world.claim()
    finally:
        postgres.start()
    assert len(await world.claim()) == 1


async def test_a_second_process_goes_on_where_the_first_one_stopped(
    world: StoreFixture, store_url: str
) -> None:
    """The first store stays open, as a paused process would: fenced, not trusted to be gone."""
    batch = await world.running()
    paused = await world.claim_one(worker="w1")
    await world.commit(outcomes(paused, [0]), held=[paused])
    second = await reopened(world, store_url)
    try:
        assert await second.store.work.release_worker("w1") == 1
        lease = await second.claim_one(worker="w2")
        assert (await second.commit(outcomes(lease, [1, 2, 3]), worker="w2")).settled == {batch.id}
        assert (await world.settle(paused)).lost == {paused.key}
        assert await check_sums(world, batch) == Counts(4, 4, 0)
    finally:
        await second.store.aclose()


BEATS_UNTIL_KILLED = """
import asyncio, sys
from lowtide.store.sql_store import SqlStore
from testkit.store_fixture import StoreFixture, outcomes

async def main():
    store = SqlStore(sys.argv[1])
    await store.open()
    world = StoreFixture(store)
    batch = await world.running(*[("m", 100)] * 8)
    leases = await world.claim()
    print(batch.id, flush=True)
    for index in range(100):
        await world.commit(*(outcomes(lease, [index]) for lease in leases), held=leases)
        print((index + 1) * len(leases), flush=True)

asyncio.run(main())
"""


async def test_killed_amid_its_beats_a_process_loses_none_that_had_returned(
    world: StoreFixture, store_url: str
) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BEATS_UNTIL_KILLED, store_url, stdout=subprocess.PIPE
    )
    said = child.stdout
    assert said is not None
    batch_id = (await said.readline()).decode().strip()
    while int(await said.readline()) < 160:
        pass
    child.kill()
    returned = [int(line) for line in (await said.read()).split()] or [160]
    await child.wait()
    batch = await world.store.batches.get("p1", batch_id)
    assert batch is not None
    settled = (await check_sums(world, batch)).settled
    assert settled >= returned[-1]
    assert settled % 8 == 0, "a beat of eight slices is there whole or not at all"
