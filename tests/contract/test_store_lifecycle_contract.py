"""Contract of LifecycleStore: task leases, plans and their token limit, results, expiry."""

import asyncio
from datetime import timedelta

import pytest

from lowtide.core.accounts.token_queue import TokenLimitReached
from lowtide.core.batches.batch import INPUT_LOST, BatchError
from lowtide.limits import FILE_TTL_S
from testkit.store_fixture import TTL_S, StoreFixture, outcomes, result_file

# ---- task leases


async def test_the_oldest_validating_batch_is_claimed_first_and_once(world: StoreFixture) -> None:
    older = await world.validating()
    world.pass_time(1)
    younger = await world.validating()
    store = world.store.lifecycle
    leases = [await store.claim_validation("v", world.now, TTL_S) for _ in range(3)]
    assert [lease.batch.id if lease else None for lease in leases] == [older.id, younger.id, None]


async def two_organizations(world: StoreFixture) -> None:
    """Projects p1 and p2, of different organizations."""
    await world.project("p1")
    await world.project("p2", (await world.organization()).id)


async def test_a_batch_waits_behind_one_validation_of_another_organization(
    world: StoreFixture,
) -> None:
    await two_organizations(world)
    many = [await world.validating(project="p1") for _ in range(12)]
    store = world.store.lifecycle
    under_way = await store.claim_validation("v", world.now, TTL_S)
    world.pass_time(1)
    late = await world.validating(project="p2")
    following = await store.claim_validation("v", world.now, TTL_S)
    rest = [await store.claim_validation("v", world.now, TTL_S) for _ in range(12)]
    assert under_way is not None
    assert under_way.batch.id == many[0].id
    assert following is not None
    assert following.batch.id == late.id
    assert [lease.batch.id for lease in rest if lease] == [batch.id for batch in many[1:]]


async def test_a_batch_waits_behind_one_assembly_of_another_organization(
    world: StoreFixture,
) -> None:
    await two_organizations(world)
    for project in ("p1", "p1", "p1", "p2"):
        batch = await world.running(project=project)
        await world.settle(await world.claim_one())
        world.pass_time(1)
        last = batch
    store = world.store.lifecycle
    leases = [await store.claim_assembly("a", world.now, TTL_S) for _ in range(4)]
    order = [lease.batch.project_id for lease in leases if lease]
    assert order == ["p1", "p2", "p1", "p1"]
    assert last.project_id == "p2"


async def test_a_place_for_short_inputs_passes_long_ones_over(world: StoreFixture) -> None:
    long = await world.validating()
    store = world.store.lifecycle
    assert await store.claim_validation("v", world.now, TTL_S, bytes_max=999) is None
    lease = await store.claim_validation("v", world.now, TTL_S, bytes_max=1000)
    assert lease is not None
    assert lease.batch.id == long.id


async def test_claimers_of_a_task_at_once_get_it_once(world: StoreFixture) -> None:
    await world.validating()
    store = world.store.lifecycle
    leases = await asyncio.gather(
        *(store.claim_validation(f"v{n}", world.now, TTL_S) for n in range(5))
    )
    assert sum(lease is not None for lease in leases) == 1


async def test_a_released_task_goes_to_the_next_at_once(world: StoreFixture) -> None:
    batch = await world.validating()
    lease = await world.validation(batch)
    await world.store.lifecycle.release_task(lease)
    again = await world.validation(batch)
    assert again.token > lease.token
    await world.store.lifecycle.release_task(lease)  # the old holder has no say any more
    assert await world.store.lifecycle.claim_validation("v", world.now, TTL_S) is None


async def test_a_renewed_task_is_not_reaped(world: StoreFixture) -> None:
    batch = await world.validating()
    lease = await world.validation(batch)
    world.pass_time(TTL_S - 1)
    assert await world.store.lifecycle.renew_task(lease, world.now, TTL_S) is True
    world.pass_time(TTL_S - 1)
    assert await world.store.work.reap(world.now) == 0
    world.pass_time(1)
    assert await world.store.work.reap(world.now) == 1
    assert await world.store.lifecycle.renew_task(lease, world.now, TTL_S) is False


async def test_a_reaped_validator_can_neither_plan_nor_reject(world: StoreFixture) -> None:
    batch = await world.validating()
    old = await world.validation(batch)
    world.pass_time(TTL_S)
    await world.store.work.reap(world.now)
    assert await world.plan(old, ("m", 1)) is False
    new = await world.validation(batch)
    assert await world.plan(old, ("m", 1)) is False
    assert await world.store.lifecycle.reject(old, [], 0, world.now) is False
    assert await world.plan(new, ("m", 1)) is True
    assert await world.plan(new, ("m", 1)) is False, "a plan is committed once"


async def test_a_task_of_a_batch_that_was_cancelled_cannot_be_renewed(world: StoreFixture) -> None:
    batch = await world.validating()
    lease = await world.validation(batch)
    await world.store.batches.cancel("p1", batch.id, world.now)
    assert await world.store.lifecycle.renew_task(lease, world.now, TTL_S) is False
    assert await world.store.lifecycle.reject(lease, [], 0, world.now) is False


# ---- plans


async def test_a_committed_plan_starts_the_batch(world: StoreFixture) -> None:
    batch = await world.validating()
    lease = await world.validation(batch)
    world.pass_time(2)
    assert await world.plan(lease, ("m", 3), ("m", 2)) is True
    seen = await world.see(batch)
    assert (seen.status, seen.in_progress_at) == ("in_progress", world.now)
    assert (seen.counts.total, seen.model) == (5, "m")
    assert seen.plan_key == f"plans/{batch.id}"


async def test_a_batch_of_several_models_names_none(world: StoreFixture) -> None:
    assert (await world.running(("a", 1), ("b", 1))).model is None


async def test_a_plan_without_requests_is_refused(world: StoreFixture) -> None:
    lease = await world.validation(await world.validating())
    with pytest.raises(ValueError, match="0 requests"):
        await world.plan(lease)


async def test_a_rejected_batch_keeps_its_errors(world: StoreFixture) -> None:
    batch = await world.validating()
    lease = await world.validation(batch)
    errors = (
        BatchError("invalid_json", "line 3 is no JSON", line=3),
        BatchError("missing", "no custom_id", line=9, param="custom_id"),
    )
    assert await world.store.lifecycle.reject(lease, errors, 1234, world.now) is True
    seen = await world.see(batch)
    assert (seen.status, seen.failed_at) == ("failed", world.now)
    assert (seen.errors, seen.errors_total) == (errors, 1234)


async def test_enqueued_tokens_are_bounded_per_model_and_organization(world: StoreFixture) -> None:
    other = await world.organization()
    await world.project("p3", other.id)
    await world.running(("a", 6), ("b", 1))
    batch = await world.validating()
    lease = await world.validation(batch)
    reached = await world.plan(lease, ("b", 9), ("a", 5), tokens_max=1000)
    assert reached == TokenLimitReached("a", 1000, 600, 500)
    assert (await world.see(batch)).status == "validating"
    assert await world.store.batches.models(batch.id) == {}
    assert await world.plan(lease, ("b", 9), ("a", 4), tokens_max=1000) is True
    sister = await world.validation(await world.validating(project="p2"))
    reached = await world.plan(sister, ("a", 1), tokens_max=1000)
    assert reached == TokenLimitReached("a", 1000, 1000, 100)
    foreign = await world.validation(await world.validating(project="p3"))
    assert await world.plan(foreign, ("a", 10), tokens_max=1000) is True


async def test_settled_requests_make_room_under_the_token_limit(world: StoreFixture) -> None:
    await world.running(("m", 10))
    lease = await world.claim_one()
    await world.commit(outcomes(lease, range(7), failed=[0]), held=[lease])
    blocked = await world.validation(await world.validating())
    reached = await world.plan(blocked, ("m", 8), tokens_max=1000)
    assert reached == TokenLimitReached("m", 1000, 300, 800)
    assert await world.plan(blocked, ("m", 7), tokens_max=1000) is True


async def test_estimates_that_do_not_divide_settle_to_nothing_left(world: StoreFixture) -> None:
    await world.running(("m", 3), ("m", 1))
    lease = await world.claim_one()
    for index in range(3):
        await world.commit(outcomes(lease, [index]), held=[lease])
    blocked = await world.validation(await world.validating())
    reached = await world.plan(blocked, ("m", 1), tokens_max=0)
    assert reached == TokenLimitReached("m", 0, 100, 100)


async def test_a_cancelled_batch_is_not_enqueued_any_more(world: StoreFixture) -> None:
    batch = await world.running(("m", 10))
    await world.store.batches.cancel("p1", batch.id, world.now)
    lease = await world.validation(await world.validating())
    assert await world.plan(lease, ("m", 10), tokens_max=1000) is True


# ---- assembly


async def test_assembly_completes_the_batch_and_its_files(world: StoreFixture) -> None:
    batch = await world.running()
    await world.settle(await world.claim_one(), failed=1)
    world.pass_time(7)
    ended = await world.assemble(batch)
    assert (ended.status, ended.completed_at, ended.ended_at) == ("completed",) + (world.now,) * 2
    for file_id, kind, lines in (
        (ended.output_file_id, "out", 3),
        (ended.error_file_id, "err", 1),
    ):
        file = await world.store.files.get("p1", file_id or "")
        assert file is not None
        assert (file.status, file.lines, file.bytes) == ("uploaded", lines, lines * 100)
        assert (file.blob_key, file.sha256) == (f"results/{batch.id}/{kind}", "cd" * 32)
        assert file.expires_at == world.now + timedelta(seconds=FILE_TTL_S)


async def test_result_files_live_as_long_as_the_client_asked(world: StoreFixture) -> None:
    ended = await world.completed(output_expires_after_s=3600)
    output = await world.store.files.get("p1", ended.output_file_id or "")
    assert output is not None
    assert output.expires_at == world.now + timedelta(hours=1)


async def test_a_file_without_lines_has_no_row(world: StoreFixture) -> None:
    ended = await world.completed()
    assert ended.error_file_id is None
    files = await world.store.files.page("p1", after=None, limit=9)
    assert [file.id for file in files if file.batch_id] == [ended.output_file_id]


async def test_results_that_do_not_hold_each_request_once_are_refused(world: StoreFixture) -> None:
    batch = await world.running()
    await world.settle(await world.claim_one(), failed=1)
    lease = await world.assembly()
    with pytest.raises(ValueError, match="result lines"):
        await world.store.lifecycle.finish(
            lease,
            output=result_file(batch, "out", 3),
            errors=result_file(batch, "err", 2),
            now=world.now,
        )
    assert (await world.see(batch)).status == "finalizing"


async def test_an_assembler_that_lost_its_lease_finishes_nothing(world: StoreFixture) -> None:
    batch = await world.running()
    await world.settle(await world.claim_one())
    old = await world.assembly()
    world.pass_time(TTL_S)
    await world.store.work.reap(world.now)
    output = result_file(batch, "out", 4)
    finish = world.store.lifecycle.finish
    assert await finish(old, output=output, errors=None, now=world.now) is False
    new = await world.assembly()
    assert await finish(old, output=output, errors=None, now=world.now) is False
    assert await finish(new, output=output, errors=None, now=world.now) is True
    assert await finish(new, output=output, errors=None, now=world.now) is False


async def test_a_batch_is_not_assembled_while_it_runs(world: StoreFixture) -> None:
    await world.running()
    assert await world.store.lifecycle.claim_assembly("a", world.now, TTL_S) is None


# ---- expiry


async def test_expiry_takes_what_is_due_and_only_that(world: StoreFixture) -> None:
    due = await world.running(window_s=3600)
    unplanned = await world.validating(window_s=3600)
    later = await world.validating(window_s=7200)
    assert await world.store.lifecycle.next_expiry() == due.expires_at
    world.pass_time(3599)
    assert await world.store.lifecycle.expire_due(world.now) == []
    world.pass_time(1)
    assert set(await world.store.lifecycle.expire_due(world.now)) == {due.id, unplanned.id}
    assert (await world.see(due)).status == "expiring"
    assert await world.claim() == []
    assert await world.store.lifecycle.next_expiry() == later.expires_at
    assert await world.store.lifecycle.expire_due(world.now) == []


async def test_an_expired_batch_ends_with_the_rest_in_its_error_file(world: StoreFixture) -> None:
    batch = await world.running(("m", 2), ("m", 2), window_s=3600)
    await world.settle(await world.claim_one())
    world.pass_time(3600)
    await world.store.lifecycle.expire_due(world.now)
    ended = await world.assemble(batch)
    assert (ended.status, ended.expired_at) == ("expired", world.now)
    assert (ended.counts.completed, ended.counts.failed) == (2, 2)
    assert ended.error_file_id is not None


@pytest.mark.parametrize("end", ["settled", "cancelled", "completed"])
async def test_a_batch_past_running_does_not_expire(world: StoreFixture, end: str) -> None:
    if end == "completed":
        batch = await world.completed(window_s=3600)
    else:
        batch = await world.running(window_s=3600)
        if end == "settled":
            await world.settle(await world.claim_one())
        else:
            await world.store.batches.cancel("p1", batch.id, world.now)
        batch = await world.see(batch)
    assert await world.store.lifecycle.next_expiry() is None
    world.pass_time(3601)
    assert await world.store.lifecycle.expire_due(world.now) == []
    assert await world.see(batch) == batch


async def test_a_batch_that_lost_its_input_ends_with_what_it_has(world: StoreFixture) -> None:
    batch = await world.running(("m", 4), ("m", 4))
    lease = await world.claim_one()
    assert await world.store.lifecycle.lose_input(batch.id, INPUT_LOST, world.now)
    assert not await world.store.lifecycle.lose_input(batch.id, INPUT_LOST, world.now)
    seen = await world.see(batch)
    assert (seen.status, [e.code for e in seen.errors]) == ("finalizing", ["input_lost"])
    assert await world.claim() == []
    receipt = await world.commit(outcomes(lease), held=[lease])
    assert receipt.settled == set()
    ended = await world.assemble(batch)
    assert (ended.status, ended.counts.completed, ended.counts.failed) == ("completed", 4, 4)
