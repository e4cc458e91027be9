"""Calls that are held: gathered, answered as results come, and let go of in time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from skipping_clock import HandClock

from lowtide import limits
from lowtide.config import Limits
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.accounts.money import model_prices
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, OrganizationLimits
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.line import render_success
from lowtide.core.batches.segment import Finished, encode_segment
from lowtide.core.errors import LowtideError
from lowtide.core.live.flex import FlexCall, read_flex
from lowtide.core.live.live import LiveAnswer
from lowtide.core.scheduling.feasibility import Verdict
from lowtide.core.usage import Usage
from lowtide.ports.blobs import BlobError, Blobs
from lowtide.ports.store import Store
from lowtide.ports.work import Beat
from lowtide.service.accounts.quotas import LimitService
from lowtide.service.files.files import FileService
from lowtide.service.live.flex import FlexService
from lowtide.service.live.flex_queue import FlexQueue
from lowtide.system import new_id
from testkit.patience import PATIENCE_S

CHAT = "/v1/chat/completions"
PRICES = {"m": model_prices(Decimal(1), None, Decimal(1), Decimal("0.5"))}


class Desk:
    """The service, and a worker's hands behind it."""

    def __init__(self, store: Store, blobs: Blobs, clock: HandClock, **more: Any) -> None:
        self.store, self.blobs, self.clock = store, blobs, clock
        bounds = more.pop("bounds", Limits())
        allowance = LimitService(store.tenants, store.ledger, clock, bounds)
        files = FileService(store.files, blobs, clock, new_id, allowance)
        self.woken = asyncio.Event()
        self.queue = FlexQueue(
            store,
            blobs,
            Catalogue([ModelEntry(id="m")]),
            clock,
            new_id,
            files,
            allowance,
            lambda name: self.woken.set() if name == "dispatch" else None,
            owner="door",
            prospects=more.pop("prospects", None),
        )
        self.flex = FlexService(self.queue, store, blobs, **({"gather_s": 0.0} | more))

    def hold(self, text: str = "hi", organization_id: str = "org") -> "asyncio.Task[LiveAnswer]":
        held = self.flex.hold(DEFAULT_PROJECT, "key", call(text), organization_id=organization_id)
        return asyncio.create_task(held)

    async def gathered(self, task: "asyncio.Task[LiveAnswer]") -> None:
        """Until a call is in a party: those held after it come after it."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.flex._gathering:
                assert not task.done()
                await asyncio.sleep(0)

    async def submitted(self) -> Batch:
        """The batch that the next party becomes."""
        async with asyncio.timeout(PATIENCE_S):
            await self.woken.wait()
        self.woken.clear()
        return (await self.store.flex.held())[-1]

    async def lease(self) -> Any:
        now = self.clock.now()
        (lease,) = await self.store.work.claim_chunks("w", ["m"], 1, now, 30.0)
        return lease

    async def settle(self, lease: Any, lines: Sequence[int]) -> None:
        finished = [
            Finished(
                index=line - 1,
                line=line,
                ok=True,
                output=render_success("openai", "x", str(line), 200, b'{"line":%d}' % line),
                usage=Usage(input_tokens=1, output_tokens=1),
            )
            for line in lines
        ]
        data, slices = encode_segment([(lease.key, lease.token, finished)])
        key = f"segments/{new_id('seg_')}"
        await self.blobs.put(key, data)
        await self.store.work.commit_beat(
            Beat(
                worker_id="w",
                segment_key=key,
                slices=tuple(slices),
                held=((lease.key, lease.token),),
                released=(),
                now=self.clock.now(),
                lease_ttl_s=30.0,
                prices=PRICES,
            )
        )


Open = Callable[..., Desk]


@pytest.fixture
async def desk(store: Store, blobs: Blobs, clock: HandClock) -> AsyncIterator[Open]:
    made: list[Desk] = []

    def make(**more: Any) -> Desk:
        made.append(Desk(store, blobs, clock, **more))
        return made[-1]

    yield make
    for house in made:
        await house.flex.aclose()


@pytest.fixture
def in_twos(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a desk whose parties are of two calls, however long these take to come."""
    monkeypatch.setattr(limits, "FLEX_LINES_MAX", 2)
    return {"gather_s": 1000.0}


def call(text: str) -> FlexCall:
    messages = [{"role": "user", "content": text}]
    body = {"model": "m", "messages": messages, "service_tier": "flex"}
    found = read_flex(CHAT, json.dumps(body).encode())
    assert found is not None
    return found


async def refused(task: "asyncio.Task[LiveAnswer]") -> LowtideError:
    with pytest.raises(LowtideError) as caught:
        await task
    return caught.value


async def test_each_caller_gets_its_line_as_soon_as_it_is_committed(
    desk: Open, in_twos: dict[str, Any]
) -> None:
    house = desk(**in_twos)
    first = house.hold("a")
    await house.gathered(first)
    second = house.hold("b")
    batch = await house.submitted()
    assert batch.counts.total == 2
    lease = await house.lease()
    await house.settle(lease, [2])
    assert await house.flex.look() is True
    assert (await second).body == b'{"line":2,"service_tier":"flex"}'
    assert not first.done()
    await house.settle(lease, [1])
    await house.flex.look()
    assert (await first).body == b'{"line":1,"service_tier":"flex"}'
    assert await house.flex.look() is False


async def test_a_call_is_held_no_longer_than_its_bound_and_not_run_after(desk: Open) -> None:
    house = desk(hold_s=0.05)
    error = await refused(house.hold())
    assert (error.code, error.retry_after_s) == ("resource_unavailable", limits.FLEX_RETRY_AFTER_S)
    assert "Try again later, or send it without service_tier" in error.message
    await house.flex.aclose()
    batches = await house.store.flex.held()
    assert [batch.status for batch in batches] == ["cancelling"]
    assert await house.store.work.claim_chunks("w", ["m"], 1, house.clock.now(), 30.0) == []


async def test_a_full_party_does_not_wait_for_more(
    desk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLEX_LINES_MAX", 3)
    house = desk(gather_s=1000.0)
    calls = [house.hold(str(number)) for number in range(4)]
    assert (await house.submitted()).counts.total == 3
    assert sum(len(party.calls) for party in house.flex._gathering.values()) <= 1
    house.flex.begin_drain()
    assert {(await refused(each)).code for each in calls} == {"server_stopping"}


async def test_a_caller_that_leaves_before_the_party_goes_is_no_part_of_it(
    desk: Open, in_twos: dict[str, Any]
) -> None:
    house = desk(**in_twos)
    leaving = house.hold("left")
    await house.gathered(leaving)
    leaving.cancel()
    await asyncio.wait([leaving])
    staying = house.hold("stays")
    assert (await house.submitted()).counts.total == 1
    await house.settle(await house.lease(), [1])
    await house.flex.look()
    assert (await staying).status == 200


async def test_more_callers_than_may_wait_are_told_so(
    desk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLEX_HELD_MAX", 0)
    assert "too many calls wait" in (await refused(desk().hold())).message


async def test_a_url_that_may_not_reach_the_engine_is_told_at_once(desk: Open) -> None:
    house = desk(bounds=Limits(media_urls="refuse"))
    part = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    body = {"model": "m", "service_tier": "flex", "messages": [{"role": "user", "content": [part]}]}
    asked = read_flex(CHAT, json.dumps(body).encode())
    assert asked is not None
    held = house.flex.hold(DEFAULT_PROJECT, "key", asked, organization_id="org")
    error = await refused(asyncio.create_task(held))
    assert (error.code, error.param) == ("invalid_request", "url")


async def test_an_organization_whose_calls_wait_leaves_places_for_others(
    desk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLEX_HELD_MAX", 4)
    house = desk()
    mine = [house.hold(str(number), "org_a") for number in range(2)]
    error = await refused(house.hold("more", "org_a"))
    assert (error.code, error.retry_after_s) == ("rate_limit_exceeded", limits.FLEX_RETRY_AFTER_S)
    assert "organization org_a" in error.message
    other = house.hold("other", "org_b")
    await asyncio.sleep(0)
    assert not other.done()
    for task in (*mine, other):
        task.cancel()
    await asyncio.gather(*mine, other, return_exceptions=True)
    assert house.flex._places.held == 0


async def test_a_queue_that_is_too_long_is_told_at_once(desk: Open) -> None:
    async def of_plan(*_: Any) -> Verdict:
        return Verdict(kept="infeasible")

    house = desk(prospects=cast("Any", SimpleNamespace(of_plan=of_plan)))
    assert "longer than 15 minutes" in (await refused(house.hold())).message
    assert await house.store.flex.held() == []


async def test_a_cap_that_is_reached_meanwhile_lets_callers_go(
    desk: Open, in_twos: dict[str, Any]
) -> None:
    house = desk(**in_twos)
    held, other = house.hold(), house.hold()
    await house.submitted()
    await house.store.tenants.change_organization(
        DEFAULT_ORGANIZATION, limits=OrganizationLimits(), spend_cap_pico=1
    )
    await house.settle(await house.lease(), [1])
    await house.flex.look()
    await asyncio.wait([held, other])
    (error,) = [task.exception() for task in (held, other) if task.exception()]
    assert isinstance(error, LowtideError)
    assert (error.code, error.retry_after_s) == ("resource_unavailable", None)


async def test_a_window_that_ended_lets_callers_go(desk: Open) -> None:
    house = desk()
    held = house.hold()
    await house.submitted()
    house.clock.advance(limits.FLEX_HOLD_S)
    await house.store.lifecycle.expire_due(house.clock.now())
    await house.flex.look()
    assert "its turn did not come" in (await refused(held)).message


async def test_bytes_that_cannot_be_stored_are_every_caller_s_error(
    desk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = desk()

    async def put(key: str, data: bytes) -> None:
        raise BlobError("away")

    monkeypatch.setattr(house.blobs, "put", put)
    calls = [house.hold(), house.hold()]
    for each in calls:
        with pytest.raises(BlobError):
            await each
    assert await house.store.flex.held() == []


async def test_what_an_earlier_process_held_is_cancelled(desk: Open) -> None:
    earlier = desk()
    held = earlier.hold()
    await earlier.submitted()
    await desk().flex.forget_lost()
    await earlier.flex.look()
    assert "was cancelled" in (await refused(held)).message
