"""Contract of deletion: an ended batch goes with its results, an input goes with the end."""

from sqlalchemy import text

from lowtide.core.batches.batch import Batch, BatchError
from lowtide.core.batches.segment import Finished, encode_segment
from lowtide.limits import SEGMENTS_KEEP_S
from lowtide.store.sql_store import SqlStore
from testkit.store_fixture import StoreFixture


async def delete(world: StoreFixture, batch: Batch) -> Batch | None:
    return await world.store.steering.delete(batch.project_id, batch.id, world.now)


async def failing(world: StoreFixture) -> Batch:
    """A batch that ended with a failure which tells what its submitter sent."""
    batch = await world.running(("m", 1))
    lease = await world.claim_one()
    line = b'{"custom_id":"c","error":{"code":"400","message":"private words"}}\n'
    finished = [Finished(0, 1, False, line)]
    _, (piece,) = encode_segment([(lease.key, lease.token, finished)])
    await world.commit(piece)
    return await world.assemble(batch)


async def test_an_ended_batch_is_hidden_with_its_results(world: StoreFixture) -> None:
    batch = await world.completed(failed=1)
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    found = await delete(world, batch)
    assert found is not None
    assert found.deleted_at == world.now
    store, project = world.store, batch.project_id
    assert await store.batches.get(project, batch.id) is None
    assert await store.batches.page(project, after=None, limit=9) == []
    for file_id in (batch.output_file_id, batch.error_file_id):
        assert await store.files.get(project, file_id) is None
    garbage = await store.results.garbage()
    assert {f"results/{batch.id}/out", f"results/{batch.id}/err"} <= set(garbage)
    assert [key for key in garbage if key.startswith("segments/")], "segments have the answers, too"
    assert await store.results.slices(batch.id) == []
    assert await store.files.get(project, batch.input_file_id) is not None
    assert await delete(world, batch) is None, "it is gone"


async def test_nothing_that_its_submitter_wrote_stays_and_its_bill_does(
    world: StoreFixture,
) -> None:
    batch = await failing(world)
    charged = await world.store.ledger.cost([batch.id])
    await delete(world, batch)
    assert await world.store.retries.failures(batch.id) == ()
    (member,) = await world.store.retries.tree(batch.project_id, batch.id)
    assert (member.metadata, member.errors) == ({}, ())
    assert await world.store.ledger.cost([batch.id]) == charged
    assert isinstance(world.store, SqlStore)
    async with world.store._db.read() as conn:
        rows = await conn.execute(text("SELECT * FROM batches WHERE id = :id"), {"id": batch.id})
        assert "private" not in str(rows.all())


async def test_a_batch_that_has_not_ended_is_not_deleted(world: StoreFixture) -> None:
    batch = await world.running(("m", 1))
    found = await delete(world, batch)
    assert found is not None
    assert found.deleted_at is None
    assert await world.see(batch) == batch
    assert await world.store.steering.delete("p2", batch.id, world.now) is None


async def test_a_failed_batch_without_a_file_is_deleted(world: StoreFixture) -> None:
    batch = await world.validating()
    lease = await world.validation(batch)
    await world.store.lifecycle.reject(lease, [BatchError("c", "words", 1)], 1, world.now)
    await delete(world, batch)
    assert await world.store.batches.get(batch.project_id, batch.id) is None
    world.pass_time(SEGMENTS_KEEP_S + 1)
    await world.store.results.sweep(world.now, segments_keep_s=SEGMENTS_KEEP_S)


# ---- the input goes with the end


async def test_an_input_is_deleted_with_the_end_that_was_created_to(world: StoreFixture) -> None:
    batch = await world.completed(failed=1, deletes_input=True)
    project, file_id = batch.project_id, batch.input_file_id
    assert await world.store.files.get(project, file_id) is None
    assert f"files/{file_id}" in await world.store.results.garbage()
    assert batch.output_file_id is not None
    assert await world.store.files.get(project, batch.output_file_id) is not None


async def test_it_goes_as_well_when_validation_fails(world: StoreFixture) -> None:
    batch = await world.validating(deletes_input=True)
    lease = await world.validation(batch)
    await world.store.lifecycle.reject(lease, [BatchError("c", "words", 1)], 1, world.now)
    assert await world.store.files.get(batch.project_id, batch.input_file_id) is None


async def test_another_batch_that_reads_it_keeps_the_bytes_until_it_ends(
    world: StoreFixture,
) -> None:
    file = await world.file()
    other = await world.running(("n", 1), file=file)
    await world.completed(file=file, deletes_input=True)
    assert await world.store.files.get(file.project_id, file.id) is None
    assert file.blob_key not in await world.store.results.garbage()
    await world.store.batches.cancel(other.project_id, other.id, world.now)
    await world.assemble(other)
    await world.store.results.sweep(world.now, segments_keep_s=SEGMENTS_KEEP_S)
    assert file.blob_key in await world.store.results.garbage()


async def test_groups_of_failures_go_with_an_error_file_that_is_deleted(
    world: StoreFixture,
) -> None:
    batch = await failing(world)
    assert await world.store.retries.failures(batch.id) != ()
    assert batch.error_file_id is not None
    await world.store.files.delete(batch.project_id, batch.error_file_id, world.now)
    assert await world.store.retries.failures(batch.id) == ()
