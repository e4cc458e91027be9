"""Contract of WorkStore: claims and their order."""

from store_world import World, keys, outcomes


async def test_a_batch_runs_from_claim_to_completed(world: World) -> None:
    batch = await world.running(("m", 3), ("m", 2))
    first, second = await world.claim()
    await world.commit(outcomes(first), outcomes(second, [0]), held=[second])
    receipt = await world.commit(outcomes(second, [1], failed=[1]))
    assert receipt.settled == {batch.id}
    done = await world.assemble(batch)
    assert done.status == "completed"
    assert (done.counts.total, done.counts.completed, done.counts.failed) == (5, 4, 1)
