"""Contract of LimitUseStore: what is told of limits is what planning and creating count."""

from datetime import timedelta

from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.accounts.token_queue import TokenLimitReached
from testkit.store_fixture import StoreFixture


async def test_enqueued_tokens_are_those_that_planning_counts(world: StoreFixture) -> None:
    use = world.store.limit_use
    assert await use.enqueued_tokens(DEFAULT_ORGANIZATION) == {}
    await world.running(("m", 4), ("n", 2))
    assert await use.enqueued_tokens(DEFAULT_ORGANIZATION) == {"m": 400, "n": 200}
    lease = await world.validation(await world.validating())
    reached = await world.plan(lease, ("m", 1), tokens_max=499)
    assert isinstance(reached, TokenLimitReached) and reached.enqueued == 400
    assert await world.plan(lease, ("m", 1), tokens_max=500) is True


async def test_enqueued_tokens_go_as_requests_finish_and_batches_are_cancelled(
    world: StoreFixture,
) -> None:
    use = world.store.limit_use
    batch = await world.running(("m", 4))
    await world.settle(await world.claim_one())
    assert await use.enqueued_tokens(DEFAULT_ORGANIZATION) == {}
    await world.assemble(batch)
    other = await world.running(("m", 4))
    await world.store.batches.cancel("p1", other.id, world.now)
    assert await use.enqueued_tokens(DEFAULT_ORGANIZATION) == {}


async def test_requests_in_flight_are_those_of_leased_chunks(world: StoreFixture) -> None:
    use = world.store.limit_use
    await world.running(("m", 4), ("m", 3))
    assert await use.requests_in_flight(DEFAULT_ORGANIZATION) == 0
    lease = await world.claim_one()
    assert await use.requests_in_flight(DEFAULT_ORGANIZATION) == lease.count
    await world.settle(lease)
    assert await use.requests_in_flight(DEFAULT_ORGANIZATION) == 0


async def test_the_first_batch_of_an_hour_is_told(world: StoreFixture) -> None:
    use = world.store.limit_use
    first = await world.validating()
    world.pass_time(60)
    await world.validating()
    since = world.now - timedelta(hours=1)
    assert await use.first_batch_since(DEFAULT_ORGANIZATION, since) == first.created_at
    assert await use.first_batch_since(DEFAULT_ORGANIZATION, world.now) == world.now
    assert await use.first_batch_since("org_other", since) is None
