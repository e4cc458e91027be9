"""Contract of WebhookStore and OutboxStore: the event of each end, its leases, what is recorded."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from lowtide import limits
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.batches.batch import Batch, BatchError
from lowtide.core.webhooks.endpoint import (
    PROJECT,
    BatchWebhook,
    Delivery,
    WebhookEndpoint,
    event_id_of,
)
from lowtide.core.webhooks.schedule import Attempt
from lowtide.ports.store import UnknownCursor
from lowtide.ports.webhooks import ClaimedDelivery, EndpointChange, Recorded, TooManyEndpoints
from testkit.store_fixture import StoreFixture

URL = "https://hooks.example/lowtide"
OK, DOWN = Attempt(200), Attempt(error="no answer")
LEASE_S = 45.0


async def endpoint(
    world: StoreFixture, project: str = "p1", *, most: int = 9, **rest: Any
) -> WebhookEndpoint:
    await world.project(project, rest.get("organization_id", DEFAULT_ORGANIZATION))
    rest.setdefault("organization_id", DEFAULT_ORGANIZATION)
    made = WebhookEndpoint(
        id=world.fresh("wh_"),
        project_id=project,
        url=URL,
        created_at=world.now,
        updated_at=world.now,
        **rest,
    )
    await world.store.webhooks.add(made, f"whsec_{made.id}", most=most)
    return made


async def claim(
    world: StoreFixture, worker: str = "w1", *, free: int = 9, most: int = 9
) -> list[ClaimedDelivery]:
    return await world.store.outbox.claim(worker, world.now, LEASE_S, free=free, most=most)


async def claim_one(world: StoreFixture, worker: str = "w1") -> ClaimedDelivery:
    (claimed,) = await claim(world, worker)
    return claimed


async def record(
    world: StoreFixture, claimed: ClaimedDelivery, attempt: Attempt = OK
) -> Recorded | None:
    return await world.store.outbox.record(claimed, attempt, world.now)


async def page(world: StoreFixture, endpoint_id: str, **rest: Any) -> list[Delivery]:
    rest = {"after": None, "limit": 99} | rest
    return await world.store.outbox.page("p1", endpoint_id, **rest)


async def failed(world: StoreFixture, project: str = "p1") -> Batch:
    """A batch whose file is refused: the shortest life."""
    batch = await world.validating(project=project)
    lease = await world.validation(batch)
    assert await world.store.lifecycle.reject(lease, [BatchError("c", "m")], 1, world.now)
    return batch


async def expired(world: StoreFixture) -> Batch:
    batch = await world.running(window_s=3600)
    world.pass_time(3600)
    assert await world.store.lifecycle.expire_due(world.now) == [batch.id]
    return await world.assemble(batch)


async def cancelled(world: StoreFixture) -> Batch:
    batch = await world.running()
    await world.store.batches.cancel("p1", batch.id, world.now)
    return await world.assemble(batch)


async def cancelled_in_validation(world: StoreFixture) -> Batch:
    batch = await world.validating()
    await world.store.batches.cancel("p1", batch.id, world.now)
    return await world.assemble(batch)


async def completed(world: StoreFixture) -> Batch:
    return await world.completed()


# ---- the event of an end


@pytest.mark.parametrize(
    ("end", "type"),
    [
        (completed, "batch.completed"),
        (failed, "batch.failed"),
        (expired, "batch.expired"),
        (cancelled, "batch.cancelled"),
        (cancelled_in_validation, "batch.cancelled"),
    ],
)
async def test_every_end_of_a_batch_leaves_its_event(
    world: StoreFixture, end: Any, type: str
) -> None:
    hook = await endpoint(world)
    batch = await end(world)
    claimed = await claim_one(world)
    assert claimed.delivery.type == type
    assert claimed.delivery.event_id == event_id_of(batch.id)
    assert (claimed.delivery.batch_id, claimed.delivery.url) == (batch.id, URL)
    assert claimed.secrets == (f"whsec_{hook.id}",)
    assert claimed.delivery.created_at == world.now


async def test_a_batch_that_has_not_ended_leaves_no_event(world: StoreFixture) -> None:
    await endpoint(world)
    batch = await world.running()
    await world.settle(await world.claim_one())
    assert (await world.see(batch)).status == "finalizing"
    assert await claim(world) == []


async def test_an_endpoint_hears_of_what_it_asked_for_in_its_own_project(
    world: StoreFixture,
) -> None:
    wanted = await endpoint(world, events=("batch.failed",))
    await endpoint(world, events=("batch.completed", "batch.expired"))
    await endpoint(world, "p2")
    await failed(world)
    assert [each.delivery.endpoint_id for each in await claim(world)] == [wanted.id]


async def test_the_endpoint_that_a_batch_names_hears_of_it_whatever_it_asks_for(
    world: StoreFixture,
) -> None:
    named = await endpoint(world, events=())
    both = await endpoint(world)
    for webhook in (named.id, both.id):
        batch = world.batch_record(await world.file())
        await world.store.batches.add(
            batch,
            digest=batch.id,
            repeat=False,
            since=world.now,
            webhook=BatchWebhook(webhook),
        )
        lease = await world.validation(batch)
        assert await world.store.lifecycle.reject(lease, [], 0, world.now)
    heard = sorted(each.delivery.endpoint_id for each in await claim(world))
    assert heard == sorted([named.id, both.id, both.id])


async def test_an_address_of_a_batch_is_signed_with_the_secret_of_its_project(
    world: StoreFixture,
) -> None:
    batch = world.batch_record(await world.file())
    await world.store.webhooks.rotate("p1", "whsec_p1", world.now, overlap_s=0)
    await world.store.batches.add(
        batch, digest="d", repeat=False, since=world.now, webhook=BatchWebhook(PROJECT, URL)
    )
    lease = await world.validation(batch)
    assert await world.store.lifecycle.reject(lease, [], 0, world.now)
    claimed = await claim_one(world)
    assert (claimed.delivery.endpoint_id, claimed.delivery.url) == (PROJECT, URL)
    assert claimed.secrets == ("whsec_p1",)
    recorded = await record(world, claimed)
    assert recorded is not None and recorded.delivery.state == "delivered"
    assert [each.batch_id for each in await page(world, PROJECT)] == [batch.id]


async def test_the_end_of_a_retry_is_told_where_that_of_its_batch_was(world: StoreFixture) -> None:
    named = await endpoint(world, events=())
    batch = world.batch_record(await world.file())
    await world.store.batches.add(
        batch, digest="d", repeat=False, since=world.now, webhook=BatchWebhook(named.id)
    )
    assert await world.plan(await world.validation(batch), ("m", 1)) is True
    await world.settle(await world.claim_one(), failed=1)
    await world.assemble(batch)
    again = msgspec.structs.replace(
        batch, id=world.fresh("batch_"), retry_of=batch.id, root_id=batch.id
    )
    await world.store.retries.add(again, None, 1)
    assert await world.store.lifecycle.reject(await world.validation(again), [], 0, world.now)
    heard = {each.delivery.batch_id: each.delivery.endpoint_id for each in await claim(world)}
    assert heard == {batch.id: named.id, again.id: named.id}


async def test_single_calls_have_no_events(world: StoreFixture) -> None:
    await endpoint(world)
    file = await world.file()
    batch = world.batch_record(file)
    batch = msgspec.structs.replace(batch, flex="awaited")
    added = await world.store.batches.add(batch, digest="d", repeat=False, since=world.now)
    lease = await world.validation(added)
    assert await world.store.lifecycle.reject(lease, [], 0, world.now)
    assert await claim(world) == []


# ---- leases


async def test_a_delivery_that_is_leased_is_claimed_by_nobody_else_until_the_lease_ends(
    world: StoreFixture,
) -> None:
    await endpoint(world)
    await failed(world)
    first = await claim_one(world)
    assert await claim(world, "w2") == []
    world.pass_time(LEASE_S)
    again = await claim_one(world, "w2")
    assert again.delivery.event_id == first.delivery.event_id
    assert again.token > first.token


async def test_who_lost_the_lease_records_nothing(world: StoreFixture) -> None:
    await endpoint(world)
    await failed(world)
    late = await claim_one(world)
    world.pass_time(LEASE_S)
    current = await claim_one(world, "w2")
    assert await record(world, late) is None
    recorded = await record(world, current, DOWN)
    assert recorded is not None and recorded.delivery.attempts == 1
    assert recorded.delivery.state == "pending"


async def test_the_deliveries_of_a_process_that_is_gone_are_free_at_once(
    world: StoreFixture,
) -> None:
    await endpoint(world)
    await failed(world)
    held = await claim_one(world)
    assert await world.store.outbox.release("w2") == 0
    assert await world.store.outbox.release("w1") == 1
    assert (await claim_one(world, "w2")).delivery == held.delivery
    assert await record(world, held) is None


async def test_claims_at_one_instant_share_what_there_is(world: StoreFixture) -> None:
    await endpoint(world)
    for _ in range(6):
        await failed(world)
    shares = await asyncio.gather(*(claim(world, f"w{n}", free=3) for n in range(3)))
    ids = [each.delivery.event_id for share in shares for each in share]
    assert len(ids) == len(set(ids)) == 6


async def test_an_organization_has_no_more_under_way_than_it_may_and_others_go_on(
    world: StoreFixture,
) -> None:
    other = await world.organization()
    await endpoint(world)
    await endpoint(world, "p2", organization_id=other.id)
    await world.project("p2", other.id)
    for _ in range(5):
        await failed(world)
    await failed(world, "p2")
    first = await claim(world, "w1", most=2)
    assert sorted(each.delivery.project_id for each in first) == ["p1", "p1", "p2"]
    assert await claim(world, "w2", most=2) == []
    await record(world, next(each for each in first if each.delivery.project_id == "p1"))
    (further,) = await claim(world, "w2", most=2)
    assert further.delivery.project_id == "p1"


# ---- what an attempt comes to


async def test_what_was_delivered_is_over_and_says_so(world: StoreFixture) -> None:
    hook = await endpoint(world)
    await failed(world)
    recorded = await record(world, await claim_one(world), Attempt(204))
    assert recorded is not None
    found = recorded.delivery
    assert (found.state, found.attempts, found.status_code) == ("delivered", 1, 204)
    assert (found.error, found.next_at) == (None, None)
    assert await page(world, hook.id) == [found]
    world.pass_time(10**7)
    assert await claim(world) == []
    seen = await world.store.webhooks.get("p1", hook.id)
    assert seen is not None and seen.last_success_at == found.attempted_at


async def test_a_failed_attempt_is_made_again_by_the_schedule_with_the_same_event_id(
    world: StoreFixture,
) -> None:
    hook = await endpoint(world)
    batch = await failed(world)
    for number, wait_s in enumerate(limits.WEBHOOK_RETRIES_S, start=1):
        recorded = await record(world, await claim_one(world), Attempt(503))
        assert recorded is not None and recorded.delivery.attempts == number
        assert recorded.delivery.next_at == world.now + timedelta(seconds=wait_s)
        world.pass_time(wait_s - 0.001)
        assert await claim(world) == []
        world.pass_time(0.001)
    last = await claim_one(world)
    assert last.delivery.event_id == event_id_of(batch.id)
    recorded = await record(world, last, Attempt(503))
    assert recorded is not None and recorded.delivery.state == "failed"
    assert recorded.delivery.error == "answered 503"
    world.pass_time(10**6)
    assert await claim(world) == []
    assert [each.state for each in await page(world, hook.id, state="failed")] == ["failed"]


async def test_an_attempt_goes_to_where_the_endpoint_is_now(world: StoreFixture) -> None:
    hook = await endpoint(world)
    await failed(world)
    await record(world, await claim_one(world), DOWN)
    change = EndpointChange(url="https://new.example/")
    assert await world.store.webhooks.change("p1", hook.id, change, world.now)
    world.pass_time(limits.WEBHOOK_RETRIES_S[0])
    assert (await claim_one(world)).delivery.url == "https://new.example/"


async def test_an_endpoint_without_a_success_for_five_days_is_disabled(world: StoreFixture) -> None:
    hook = await endpoint(world)
    await failed(world)
    recorded = await record(world, await claim_one(world), DOWN)
    assert recorded is not None and recorded.disabled_reason is None
    world.pass_time(limits.WEBHOOK_FAILING_S_MAX)
    await failed(world)
    first, second = await claim(world)
    recorded = await record(world, first, DOWN)
    assert recorded is not None and recorded.disabled_reason is not None
    seen = await world.store.webhooks.get("p1", hook.id)
    assert seen is not None and not seen.is_enabled
    assert seen.disabled_reason == recorded.disabled_reason
    assert "5 days" in recorded.disabled_reason and "no answer" in recorded.disabled_reason
    assert await record(world, second) is None
    assert {each.state for each in await page(world, hook.id)} == {"failed"}


async def test_a_success_ends_the_days_of_failing(world: StoreFixture) -> None:
    hook = await endpoint(world)
    await failed(world)
    await record(world, await claim_one(world), DOWN)
    world.pass_time(limits.WEBHOOK_FAILING_S_MAX)
    await record(world, await claim_one(world), OK)
    await failed(world)
    recorded = await record(world, await claim_one(world), DOWN)
    assert recorded is not None and recorded.disabled_reason is None
    seen = await world.store.webhooks.get("p1", hook.id)
    assert seen is not None and seen.is_enabled and seen.failing_since == world.now


async def test_an_endpoint_that_answers_gone_is_disabled_at_once(world: StoreFixture) -> None:
    hook = await endpoint(world)
    await failed(world)
    recorded = await record(world, await claim_one(world), Attempt(410))
    assert recorded is not None and recorded.disabled_reason == "It answered 410 Gone."
    seen = await world.store.webhooks.get("p1", hook.id)
    assert seen is not None and seen.disabled_at == world.now


async def test_events_for_a_disabled_endpoint_are_kept_and_can_be_replayed(
    world: StoreFixture,
) -> None:
    hook = await endpoint(world)
    await failed(world)
    change = world.store.webhooks.change
    off = await change("p1", hook.id, EndpointChange(enabled=False), world.now)
    assert off is not None and off.disabled_reason == "It was disabled by its owner."
    await failed(world)
    assert await claim(world) == []
    assert [each.state for each in await page(world, hook.id)] == ["failed", "failed"]
    on = await change("p1", hook.id, EndpointChange(enabled=True), world.now)
    assert on is not None and on.is_enabled and on.disabled_reason is None
    assert await claim(world) == []
    assert await world.store.outbox.replay("p1", hook.id, None, world.now, most=9) == 2
    assert len(await claim(world)) == 2


async def test_a_replay_sends_one_event_once_more_by_a_fresh_schedule(world: StoreFixture) -> None:
    hook = await endpoint(world)
    batch = await failed(world)
    await record(world, await claim_one(world))
    replay = world.store.outbox.replay
    event_id = event_id_of(batch.id)
    assert await replay("p2", hook.id, event_id, world.now, most=9) == 0
    assert await replay("p1", "wh_other", event_id, world.now, most=9) == 0
    assert await replay("p1", hook.id, "evt_other", world.now, most=9) == 0
    assert await replay("p1", hook.id, event_id, world.now, most=9) == 1
    again = await claim_one(world)
    assert (again.delivery.event_id, again.delivery.attempts) == (event_id, 0)


async def test_a_replay_of_what_has_failed_is_bounded_and_begins_with_the_oldest(
    world: StoreFixture,
) -> None:
    hook = await endpoint(world)
    await world.store.webhooks.change("p1", hook.id, EndpointChange(enabled=False), world.now)
    batches = []
    for _ in range(3):
        batches.append(await failed(world))
        world.pass_time(1)
    await world.store.webhooks.change("p1", hook.id, EndpointChange(enabled=True), world.now)
    assert await world.store.outbox.replay("p1", hook.id, None, world.now, most=2) == 2
    claimed = {each.delivery.batch_id for each in await claim(world)}
    assert claimed == {batches[0].id, batches[1].id}


# ---- endpoints and secrets


async def test_an_endpoint_comes_back_as_it_was_added_to_its_own_project(
    world: StoreFixture,
) -> None:
    first = await endpoint(world, events=("batch.failed",), name="käse")
    world.pass_time(1)
    second = await endpoint(world)
    webhooks = world.store.webhooks
    assert await webhooks.get("p1", first.id) == first
    assert await webhooks.all_of("p1") == [second, first]
    assert await webhooks.get("p2", first.id) is None
    assert await webhooks.all_of("p2") == []
    assert await webhooks.change("p2", first.id, EndpointChange(name="x"), world.now) is None
    assert not await webhooks.delete("p2", first.id)
    assert await webhooks.get("p1", first.id) == first


async def test_a_change_leaves_what_it_does_not_name(world: StoreFixture) -> None:
    made = await endpoint(world, name="n")
    world.pass_time(1)
    change = EndpointChange(events=("batch.expired",))
    changed = await world.store.webhooks.change("p1", made.id, change, world.now)
    assert changed is not None
    assert (changed.url, changed.name, changed.events) == (URL, "n", ("batch.expired",))
    assert changed.updated_at == world.now
    world.pass_time(1)
    unchanged = await world.store.webhooks.change("p1", made.id, change, world.now)
    assert unchanged == changed


async def test_a_project_has_no_more_endpoints_than_it_may_also_at_one_instant(
    world: StoreFixture,
) -> None:
    await endpoint(world, "p2")
    made = await asyncio.gather(
        *(endpoint(world, most=2) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(each, TooManyEndpoints) for each in made) == 2
    assert len(await world.store.webhooks.all_of("p1")) == 2


async def test_a_deleted_endpoint_takes_its_deliveries_and_secrets_along(
    world: StoreFixture,
) -> None:
    hook, other = await endpoint(world), await endpoint(world)
    await failed(world)
    (held,) = [each for each in await claim(world) if each.delivery.endpoint_id == hook.id]
    assert await world.store.webhooks.delete("p1", hook.id)
    assert not await world.store.webhooks.delete("p1", hook.id)
    assert await record(world, held) is None
    assert await page(world, hook.id) == []
    assert await world.store.webhooks.secrets(hook.id, world.now) == ()
    assert len(await page(world, other.id)) == 1


async def test_secrets_overlap_for_as_long_as_a_rotation_says(world: StoreFixture) -> None:
    hook = await endpoint(world)
    secrets, rotate = world.store.webhooks.secrets, world.store.webhooks.rotate
    first = f"whsec_{hook.id}"
    world.pass_time(1)
    await rotate(hook.id, "whsec_2", world.now, overlap_s=60)
    assert await secrets(hook.id, world.now) == ("whsec_2", first)
    world.pass_time(60)
    assert await secrets(hook.id, world.now) == ("whsec_2",)
    await rotate(hook.id, "whsec_3", world.now, overlap_s=0)
    assert await secrets(hook.id, world.now) == ("whsec_3",)


async def test_no_more_secrets_sign_at_one_time_than_may(world: StoreFixture) -> None:
    hook = await endpoint(world)
    for number in range(8):
        world.pass_time(1)
        await world.store.webhooks.rotate(hook.id, f"whsec_{number}", world.now, overlap_s=999)
    found = await world.store.webhooks.secrets(hook.id, world.now)
    assert found == tuple(f"whsec_{n}" for n in (7, 6, 5, 4))
    assert len(found) == limits.WEBHOOK_SECRETS_MAX


# ---- pages and forgetting


async def test_pages_of_deliveries_follow_each_other_newest_first(world: StoreFixture) -> None:
    hook = await endpoint(world)
    batches = []
    for _ in range(3):
        batches.append((await failed(world)).id)
        world.pass_time(1)
    first = await page(world, hook.id, limit=2)
    assert [each.batch_id for each in first] == batches[:0:-1]
    rest = await page(world, hook.id, after=first[-1].event_id, limit=2)
    assert [each.batch_id for each in rest] == batches[:1]
    assert await world.store.outbox.page("p2", hook.id, after=None, limit=9) == []
    with pytest.raises(UnknownCursor):
        await page(world, hook.id, after="evt_unknown")


async def test_old_deliveries_are_forgotten_once_they_are_over(world: StoreFixture) -> None:
    hook = await endpoint(world)
    await failed(world)
    await record(world, await claim_one(world))
    pending = await failed(world)
    world.pass_time(100)
    fresh = await failed(world)
    for claimed in await claim(world):
        if claimed.delivery.batch_id == fresh.id:
            await record(world, claimed)
    before = world.now - timedelta(seconds=50)
    assert await world.store.outbox.forget(before, most=9) == 1
    assert await world.store.outbox.forget(before, most=9) == 0
    assert [each.batch_id for each in await page(world, hook.id)] == [fresh.id, pending.id]
