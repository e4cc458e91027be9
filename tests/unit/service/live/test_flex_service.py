"""Calls that are held: gathered, answered as results come, and let go of in time."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.config import LimitSettings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.accounts.money import model_prices
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, OrganizationLimits
from lowtide.core.batches.batch import Batch
from lowtide.core.batches.line import render_success
from lowtide.core.batches.segment import Finished, encode_segment
from lowtide.core.errors import LowtideError
from lowtide.core.execution.records import GroupCommit
from lowtide.core.live.flex import FlexCall, Result, answer_to, read_flex
from lowtide.core.live.live import LiveAnswer
from lowtide.core.scheduling.feasibility import Feasibility
from lowtide.core.usage import Usage
from lowtide.core.validation.planner import Planner
from lowtide.ports.blobs import BlobError, Blobs
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.files.files import FileService
from lowtide.service.files.upload_keys import UploadKeys
from lowtide.service.live import flex as flex_service
from lowtide.service.live.flex import FlexService
from lowtide.service.live.flex_queue import FlexQueue
from lowtide.system import new_id
from testkit.patience import PATIENCE_S

CHAT = "/v1/chat/completions"
PRICES = {"m": model_prices(Decimal(1), None, Decimal(1), Decimal("0.5"))}


class FlexServiceEnv:
    """The service, and a worker's hands behind it."""

    def __init__(self, store: Store, blobs: Blobs, clock: SkippingClock, **more: Any) -> None:
        self.store, self.blobs, self.clock = store, blobs, clock
        bounds = more.pop("bounds", LimitSettings())
        allowance = Quotas(store.tenants, store.ledger, clock, bounds)
        files = FileService(
            store.files, blobs, clock, new_id, allowance, UploadKeys(store.idempotency, clock)
        )
        self.woken = asyncio.Event()
        catalogue = Catalogue([ModelEntry(id="m")])
        self.queue = FlexQueue(
            store,
            blobs,
            catalogue,
            Planner(catalogue, lambda: allowance.defaults),
            clock,
            new_id,
            files,
            allowance,
            lambda name: self.woken.set() if name == "dispatch" else None,
            owner="api",
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
        return (await self.store.flex.awaited())[-1]

    async def lease(self) -> Any:
        now = self.clock.now()
        (lease,) = await self.store.work.claim_chunks("w", ["m"], 1, now, 30.0)
        return lease

    async def settle(self, lease: Any, lines: Sequence[int], body: bytes | None = None) -> None:
        finished = [
            Finished(
                index=line - 1,
                line=line,
                ok=True,
                output=render_success("openai", "x", str(line), 200, body or b'{"line":%d}' % line),
                usage=Usage(input_tokens=1, output_tokens=1),
            )
            for line in lines
        ]
        data, slices = encode_segment([(lease.key, lease.token, finished)])
        key = f"segments/{new_id('seg_')}"
        await self.blobs.put(key, data)
        await self.store.work.commit_group(
            GroupCommit(
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


Open = Callable[..., FlexServiceEnv]


@pytest.fixture
async def service_env(store: Store, blobs: Blobs, clock: SkippingClock) -> AsyncIterator[Open]:
    made: list[FlexServiceEnv] = []

    def make(**more: Any) -> FlexServiceEnv:
        made.append(FlexServiceEnv(store, blobs, clock, **more))
        return made[-1]

    yield make
    for env in made:
        await env.flex.aclose()


@pytest.fixture
def in_twos(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A service whose groups are of two calls, however long these take to come."""
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
    service_env: Open, in_twos: dict[str, Any]
) -> None:
    env = service_env(**in_twos)
    first = env.hold("a")
    await env.gathered(first)
    second = env.hold("b")
    batch = await env.submitted()
    assert batch.counts.total == 2
    lease = await env.lease()
    await env.settle(lease, [2])
    assert await env.flex.deliver_results() is True
    assert (await second).body == b'{"line":2,"service_tier":"flex"}'
    assert not first.done()
    await env.settle(lease, [1])
    await env.flex.deliver_results()
    assert (await first).body == b'{"line":1,"service_tier":"flex"}'
    assert await env.flex.deliver_results() is False


async def test_a_call_is_held_no_longer_than_its_bound_and_not_run_after(service_env: Open) -> None:
    env = service_env(hold_s=0.05)
    error = await refused(env.hold())
    assert (error.code, error.retry_after_s) == ("resource_unavailable", limits.FLEX_RETRY_AFTER_S)
    assert "Try again later, or send it without service_tier" in error.message
    await env.flex.aclose()
    batches = await env.store.flex.awaited()
    assert [batch.status for batch in batches] == ["cancelling"]
    assert await env.store.work.claim_chunks("w", ["m"], 1, env.clock.now(), 30.0) == []


async def test_a_full_party_does_not_wait_for_more(
    service_env: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLEX_LINES_MAX", 3)
    env = service_env(gather_s=1000.0)
    calls = [env.hold(str(number)) for number in range(4)]
    assert (await env.submitted()).counts.total == 3
    assert sum(len(party.calls) for party in env.flex._gathering.values()) <= 1
    env.flex.begin_drain()
    assert {(await refused(each)).code for each in calls} == {"server_stopping"}


async def test_a_caller_that_leaves_before_the_party_goes_is_no_part_of_it(
    service_env: Open, in_twos: dict[str, Any]
) -> None:
    env = service_env(**in_twos)
    leaving = env.hold("left")
    await env.gathered(leaving)
    leaving.cancel()
    await asyncio.wait([leaving])
    staying = env.hold("stays")
    assert (await env.submitted()).counts.total == 1
    await env.settle(await env.lease(), [1])
    await env.flex.deliver_results()
    assert (await staying).status == 200


async def test_more_callers_than_may_wait_are_told_so(
    service_env: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLEX_HELD_MAX", 0)
    assert "too many calls wait" in (await refused(service_env().hold())).message


async def test_a_url_that_may_not_reach_the_engine_is_told_at_once(service_env: Open) -> None:
    env = service_env(bounds=LimitSettings(media_urls="refuse"))
    part = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    body = {"model": "m", "service_tier": "flex", "messages": [{"role": "user", "content": [part]}]}
    asked = read_flex(CHAT, json.dumps(body).encode())
    assert asked is not None
    held = env.flex.hold(DEFAULT_PROJECT, "key", asked, organization_id="org")
    error = await refused(asyncio.create_task(held))
    assert (error.code, error.param) == ("invalid_request", "url")


async def test_an_organization_whose_calls_wait_leaves_places_for_others(
    service_env: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLEX_HELD_MAX", 4)
    env = service_env()
    mine = [env.hold(str(number), "org_a") for number in range(2)]
    error = await refused(env.hold("more", "org_a"))
    assert (error.code, error.retry_after_s) == ("rate_limit_exceeded", limits.FLEX_RETRY_AFTER_S)
    assert "organization org_a" in error.message
    other = env.hold("other", "org_b")
    await asyncio.sleep(0)
    assert not other.done()
    for task in (*mine, other):
        task.cancel()
    await asyncio.gather(*mine, other, return_exceptions=True)
    assert env.flex._places.held == 0


async def test_a_queue_that_is_too_long_is_told_at_once(service_env: Open) -> None:
    async def of_plan(*_: Any) -> Feasibility:
        return Feasibility(kept="infeasible")

    env = service_env(prospects=cast("Any", SimpleNamespace(of_plan=of_plan)))
    assert "longer than 15 minutes" in (await refused(env.hold())).message
    assert await env.store.flex.awaited() == []


async def test_a_cap_that_is_reached_meanwhile_lets_callers_go(
    service_env: Open, in_twos: dict[str, Any]
) -> None:
    env = service_env(**in_twos)
    held, other = env.hold(), env.hold()
    await env.submitted()
    await env.store.tenants.change_organization(
        DEFAULT_ORGANIZATION,
        limits=OrganizationLimits(),
        spend_cap_pico=1,
        now=datetime.now(UTC),
    )
    await env.settle(await env.lease(), [1])
    await env.flex.deliver_results()
    await asyncio.wait([held, other])
    (error,) = [task.exception() for task in (held, other) if task.exception()]
    assert isinstance(error, LowtideError)
    assert (error.code, error.retry_after_s) == ("resource_unavailable", None)


async def test_a_window_that_ended_lets_callers_go(service_env: Open) -> None:
    env = service_env()
    held = env.hold()
    await env.submitted()
    env.clock.advance(limits.FLEX_HOLD_S)
    await env.store.lifecycle.expire_due(env.clock.now())
    await env.flex.deliver_results()
    assert "its turn did not come" in (await refused(held)).message


async def test_bytes_that_cannot_be_stored_are_every_caller_s_error(
    service_env: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = service_env()

    async def put(key: str, data: bytes) -> None:
        raise BlobError("away")

    monkeypatch.setattr(env.blobs, "put", put)
    calls = [env.hold(), env.hold()]
    for each in calls:
        with pytest.raises(BlobError):
            await each
    assert await env.store.flex.awaited() == []


async def test_what_an_earlier_process_held_is_cancelled(service_env: Open) -> None:
    earlier = service_env()
    held = earlier.hold()
    await earlier.submitted()
    await service_env().flex.forget_lost()
    await earlier.flex.deliver_results()
    assert "was cancelled" in (await refused(held)).message


async def test_large_answers_are_put_together_beside_the_event_loop(
    service_env: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading one line of megabytes, and writing it anew, would stop all other calls."""
    threads: dict[int, int] = {}

    def answered(call: FlexCall, result: Result) -> LiveAnswer:
        threads[result.number] = threading.get_ident()
        return answer_to(call, result)

    monkeypatch.setattr(flex_service, "answer_to", answered)
    env = service_env(gather_s=0.01)
    small, large = env.hold("a"), env.hold("b")
    await env.submitted()
    lease = await env.lease()
    await env.settle(lease, [1])
    text = b'{"text":"%b"}' % (b"x" * limits.LARGE_BODY_BYTES)
    await env.settle(lease, [2], text)
    await env.flex.deliver_results()
    assert (await small).body == b'{"line":1,"service_tier":"flex"}'
    assert (await large).body == text[:-1] + b',"service_tier":"flex"}'
    assert threads[1] == threading.get_ident() != threads[2]
