"""The contract of `ports.calibration.CalibrationStore`."""

import asyncio

from lowtide.ports.store import Store
from lowtide.store.sql_store import SqlStore
from testkit.store_fixture import StoreFixture


async def test_nothing_is_learnt_in_a_fresh_store(store: Store) -> None:
    assert dict(await store.calibrations.load()) == {}


async def test_the_last_save_of_each_model_is_what_loads(world: StoreFixture) -> None:
    calibrations, now = world.store.calibrations, world.now
    await calibrations.save("a", b"\x00old", now)
    await calibrations.save("b/c", b"", now)
    await calibrations.save("a", b"\xffnew", now)
    assert dict(await calibrations.load()) == {"a": b"\xffnew", "b/c": b""}


async def test_what_was_saved_is_there_for_another_process(
    store_url: str, world: StoreFixture
) -> None:
    await world.store.calibrations.save("a", b"1", world.now)
    other = SqlStore(store_url)
    await other.open()
    assert dict(await other.calibrations.load()) == {"a": b"1"}
    await other.aclose()


async def test_workers_that_save_a_new_model_together_both_succeed(
    store_url: str, world: StoreFixture
) -> None:
    other = SqlStore(store_url)
    await other.open()
    stores = (world.store, other)
    await asyncio.gather(*(s.calibrations.save("a", b"1", world.now) for s in stores))
    assert dict(await other.calibrations.load()) == {"a": b"1"}
    await other.aclose()
