"""Contract of claims that leave out an endpoint of a model: nobody waits behind what cannot run."""

from collections.abc import Collection

from lowtide.core.batches.chunk import ChunkLease
from testkit.store_fixture import TTL_S, StoreFixture

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"


async def claim(
    world: StoreFixture, without: Collection[tuple[str, str]], models: tuple[str, ...] = ("m",)
) -> list[ChunkLease]:
    work = world.store.work
    return await work.claim_chunks("w1", models, 32, world.now, TTL_S, None, without)


async def test_chunks_of_the_endpoint_stay_for_others(world: StoreFixture) -> None:
    shut = await world.running(*[("m", 1)] * 3, endpoint=EMBEDDINGS)
    chat = await world.running(*[("m", 1)] * 2)
    leases = await claim(world, {("m", EMBEDDINGS)})
    assert [lease.key.batch_id for lease in leases] == [chat.id] * 2
    assert await claim(world, {("m", EMBEDDINGS)}) == []
    others = await world.claim(worker="w2")
    assert [lease.key.batch_id for lease in others] == [shut.id] * 3


async def test_another_model_at_that_endpoint_is_claimed(world: StoreFixture) -> None:
    await world.running(("m", 1), ("n", 1), endpoint=EMBEDDINGS)
    leases = await claim(world, {("m", EMBEDDINGS)}, ("m", "n"))
    assert [lease.model for lease in leases] == ["n"]


async def test_nobody_waits_behind_organizations_that_have_nothing_else(
    world: StoreFixture,
) -> None:
    """More of them than chunks are wanted, and all were given less than the one that may run."""
    for n in range(40):
        organization = await world.organization()
        project = await world.project(f"shut{n}", organization.id)
        await world.running(("m", 1), endpoint=EMBEDDINGS, project=project)
    fed = await world.running(*[("m", 1)] * 2)
    await world.settle((await claim(world, {("m", EMBEDDINGS)}))[0])
    chat = await world.running(("m", 1))
    leases = await claim(world, {("m", EMBEDDINGS)})
    assert {lease.key.batch_id for lease in leases} <= {fed.id, chat.id}
    assert chat.id in {lease.key.batch_id for lease in leases}


async def test_an_urgent_batch_of_the_endpoint_is_left_out_as_well(world: StoreFixture) -> None:
    urgent = [await world.running(("m", 1), endpoint=EMBEDDINGS) for _ in range(33)]
    chat = await world.running(("m", 1))
    names = [batch.id for batch in [*urgent, chat]]
    await world.store.capacity.mark_urgent("m", names)
    leases = await claim(world, {("m", EMBEDDINGS)})
    assert [lease.key.batch_id for lease in leases] == [chat.id]
