"""Contract of ResultStore: what may be swept, when, and what never."""

from datetime import timedelta

from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.batches.batch import Batch
from lowtide.limits import FILE_TTL_S
from testkit.store_fixture import StoreFixture, outcomes

KEEP_S = 3600.0


async def sweep(world: StoreFixture, **rest) -> set[str]:
    """Sweep, and the keys that this added to the garbage."""
    before = set(await world.store.results.garbage(10_000))
    added = await world.store.results.sweep(world.now, segments_keep_s=KEEP_S, **rest)
    fresh = set(await world.store.results.garbage(10_000)) - before
    assert added == len(fresh)
    return fresh


async def test_nothing_that_a_running_batch_needs_is_swept(world: StoreFixture) -> None:
    file = await world.file(expires_at=world.now + timedelta(minutes=5))
    batch = await world.running(file=file, window_s=30 * 24 * 3600)
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [0, 1], failed=[0]), held=[lease])
    world.pass_time(29 * 24 * 3600)
    assert await sweep(world) == set()
    assert len(await world.store.results.slices(batch.id)) == 1
    seen = await world.see(batch)
    for file_id in (seen.output_file_id, seen.error_file_id):
        assert await world.store.files.get("p1", file_id or "") is not None


async def test_the_plan_goes_when_the_batch_ends_and_the_slices_later(world: StoreFixture) -> None:
    batch = await world.completed()
    (row,) = await world.store.results.slices(batch.id)
    assert await sweep(world) == {f"plans/{batch.id}"}
    world.pass_time(KEEP_S - 1)
    assert await sweep(world) == set()
    assert await world.store.results.slices(batch.id) == [row]
    world.pass_time(1)
    assert await sweep(world) == {row.segment_key}
    assert await world.store.results.slices(batch.id) == []
    assert await sweep(world) == set()


async def test_a_segment_is_kept_while_another_batch_has_slices_in_it(world: StoreFixture) -> None:
    ended, running = await world.running(("m", 1)), await world.running(("m", 2))
    first, second = await world.claim()
    await world.commit(
        outcomes(first), outcomes(second, [0]), segment="segments/shared", held=[second]
    )
    await world.assemble(ended)
    world.pass_time(KEEP_S)
    assert await sweep(world) == {f"plans/{ended.id}"}
    assert await world.store.results.slices(ended.id) == []
    assert len(await world.store.results.slices(running.id)) == 1
    await world.commit(outcomes(second, [1]), segment="segments/last")
    await world.assemble(running)
    world.pass_time(KEEP_S)
    assert await sweep(world) == {f"plans/{running.id}", "segments/shared", "segments/last"}


async def test_a_file_past_its_expiry_is_deleted(world: StoreFixture) -> None:
    file = await world.file(expires_at=world.now + timedelta(minutes=5))
    kept = await world.file(expires_at=world.now + timedelta(minutes=6))
    world.pass_time(300)
    assert await sweep(world) == {file.blob_key}
    assert await world.store.files.get("p1", file.id) is None
    assert await world.store.files.get("p1", kept.id) == kept


async def test_an_expired_input_is_kept_for_the_batch_that_reads_it(world: StoreFixture) -> None:
    file = await world.file(expires_at=world.now + timedelta(minutes=5))
    batch = await world.running(file=file)
    world.pass_time(300)
    assert await sweep(world) == set()
    await world.settle(await world.claim_one())
    await world.assemble(batch)
    assert await sweep(world) == {file.blob_key, f"plans/{batch.id}"}


async def test_expired_results_go_with_their_blob(world: StoreFixture) -> None:
    batch = await world.completed(output_expires_after_s=7200)
    world.pass_time(7200)
    assert f"results/{batch.id}/out" in await sweep(world)
    assert await world.store.files.get("p1", batch.output_file_id or "") is None
    assert (await world.see(batch)).status == "completed"


async def test_a_limited_sweep_gets_there_in_steps(world: StoreFixture) -> None:
    for _ in range(3):
        await world.completed()
    world.pass_time(KEEP_S)
    swept: set[str] = set()
    steps = 0
    while fresh := await sweep(world, limit=1):
        swept |= fresh
        steps += 1
    assert len(swept) == 6
    assert steps == 3


async def test_every_key_becomes_garbage_once_and_is_forgotten_when_deleted(
    world: StoreFixture,
) -> None:
    files = [await world.file() for _ in range(3)]
    for file in files:
        await world.store.files.delete("p1", file.id, world.now)
    assert await sweep(world) == set()
    assert await world.store.results.garbage(2) == [file.blob_key for file in files[:2]]
    await world.store.results.forget([file.blob_key for file in files[:2]])
    assert await world.store.results.garbage() == [files[2].blob_key]
    await world.store.results.forget([])
    world.pass_time(KEEP_S)
    assert await sweep(world) == set()


async def test_known_are_the_keys_that_rows_refer_to(world: StoreFixture) -> None:
    deleted = await world.file()
    await world.store.files.delete("p1", deleted.id, world.now)
    batch = await world.running()
    lease = await world.claim_one()
    await world.commit(outcomes(lease, [0]), segment="segments/s", held=[lease])
    known = {f"files/{batch.input_file_id}", f"plans/{batch.id}", "segments/s", deleted.blob_key}
    orphans = {f"segments/orphan{number}" for number in range(1200)}
    assert await world.store.results.known([*orphans, *known]) == known
    assert await world.store.results.known([]) == frozenset()


async def test_an_end_without_results_leaves_no_garbage_behind(world: StoreFixture) -> None:
    batch = await world.validating()
    await world.store.batches.cancel("p1", batch.id, world.now)
    await world.assemble(batch)
    world.pass_time(KEEP_S)
    assert await sweep(world) == set()


# ---- the disk is given back


async def test_when_all_has_expired_every_blob_was_garbage_and_no_row_names_one(
    world: StoreFixture,
) -> None:
    """Batches that ended in every way, their inputs and results: nothing is left on the disk."""
    blobs: set[str] = set()
    expires_at = world.now + timedelta(days=1)

    async def running(**rest) -> Batch:
        file = await world.file(expires_at=expires_at)
        batch = await world.running(("m", 2), ("m", 2), file=file, **rest)
        blobs.update({file.blob_key, f"plans/{batch.id}"})
        return batch

    async def beat(*slices, **rest) -> None:
        key = world.fresh("segments/")
        blobs.add(key)
        await world.commit(*slices, segment=key, **rest)

    async def assemble(batch: Batch, *kinds: str) -> None:
        await world.assemble(batch)
        blobs.update(f"results/{batch.id}/{kind}" for kind in kinds)

    completed = await running(output_expires_after_s=7200)
    first, second = await world.claim()
    await beat(outcomes(first, failed=[0]))
    await beat(outcomes(second))
    await assemble(completed, "out", "err")
    cancelled = await running()
    await beat(outcomes(await world.claim_one(), [0]))
    await world.store.batches.cancel("p1", cancelled.id, world.now)
    await world.store.work.release_worker("w1")
    await assemble(cancelled, "out", "err")
    expired = await running(window_s=3600)
    world.pass_time(3600)
    await world.store.lifecycle.expire_due(world.now)
    await assemble(expired, "err")
    unplanned = await world.file(expires_at=expires_at)
    blobs.add(unplanned.blob_key)
    lease = await world.validation(await world.validating(file=unplanned))
    assert await world.store.lifecycle.reject(lease, [], 1, world.now)
    await world.file(expires_at=expires_at, pending=True)

    assert await world.store.results.known(sorted(blobs)) == blobs
    world.pass_time(FILE_TTL_S)
    await sweep(world)
    assert set(await world.store.results.garbage(10_000)) == blobs
    await world.store.results.forget(sorted(blobs))
    assert await world.store.results.known(sorted(blobs)) == set()
    assert await world.store.files.page("p1", after=None, limit=99) == []
    use = await world.store.tenants.storage_use(DEFAULT_ORGANIZATION)
    assert use.bytes == 0


async def test_deleting_input_and_results_gives_the_disk_back_at_once(world: StoreFixture) -> None:
    file = await world.file()
    batch = await world.running(("m", 2), file=file)
    lease = await world.claim_one()
    assert await world.store.files.delete("p1", file.id, world.now), "while the batch reads it"
    assert await world.store.results.garbage() == []
    await world.commit(outcomes(lease, failed=[0]), segment="segments/s")
    ended = await world.assemble(batch)
    for file_id in (ended.output_file_id, ended.error_file_id):
        assert await world.store.files.delete("p1", file_id or "", world.now)
    await sweep(world)
    assert set(await world.store.results.garbage()) == {
        file.blob_key,
        f"plans/{batch.id}",
        "segments/s",
        f"results/{batch.id}/out",
        f"results/{batch.id}/err",
    }
    assert (await world.see(batch)).status == "completed"
    assert await world.store.ledger.entries(batch.id) != [], "what was charged stays known"
