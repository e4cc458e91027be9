"""The loop that delivers events: what is claimed is signed, sent and recorded, side by side."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from lowtide import limits
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.batches.batch import Batch
from lowtide.core.webhooks.endpoint import EVENT_TYPES, WebhookEndpoint, event_id_of, payload_of
from lowtide.core.webhooks.schedule import Attempt
from lowtide.loops.webhooks.deliver import DeliverLoop
from lowtide.ports.store import StoreUnavailable
from lowtide.ports.webhooks import ClaimedDelivery, Recorded
from lowtide.store.outbox import SqlOutbox
from lowtide.store.sql_store import SqlStore
from testkit.empty_database import place_empty_database
from testkit.manual_clock import ManualClock
from testkit.patience import PATIENCE_S
from testkit.store_fixture import StoreFixture

SECRET = "whsec_" + "AAAA" * 8


class FakeReceivers:
    """Everybody's receivers: what was sent, and answers as told. Silent ones hold until let go."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, str], bytes]] = []
        self.answers: dict[str, Attempt] = {}
        self.silent: set[str] = set()
        self.go_on = asyncio.Event()
        self.came = asyncio.Event()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        self.sent.append((url, headers, body))
        self.came.set()
        if url in self.silent:
            await self.go_on.wait()
        return self.answers.get(url, Attempt(200))

    async def refusal(self, url: str) -> str | None:
        return None

    async def aclose(self) -> None:
        """Nothing is open."""


async def until(fact: Callable[[], bool]) -> None:
    """Let the others run until it is one."""
    async with asyncio.timeout(PATIENCE_S):
        while not fact():  # noqa: ASYNC110 - what it looks at has no event, and it costs a step
            await asyncio.sleep(0)


class Env:
    """A store with endpoints, a loop, and its clock."""

    def __init__(self, store: SqlStore) -> None:
        self.world = StoreFixture(store)
        self.clock = ManualClock()
        self.world.now = self.clock.now()
        self.receivers = FakeReceivers()
        self.woken = 0
        self.loop = DeliverLoop("w1", store.outbox, self.receivers, self.clock, self._woken)

    def _woken(self) -> None:
        self.woken += 1

    def pass_time(self, seconds: float) -> None:
        self.world.now = self.clock.advance(seconds)

    async def endpoint(self, project: str = "p1", organization: str = DEFAULT_ORGANIZATION) -> str:
        await self.world.project(project, organization)
        id = self.world.fresh("wh_")
        made = WebhookEndpoint(
            id=id,
            project_id=project,
            organization_id=organization,
            url=f"https://{project}.example/",
            events=EVENT_TYPES,
            created_at=self.world.now,
            updated_at=self.world.now,
        )
        await self.world.store.webhooks.add(made, SECRET, most=9)
        return id

    async def ended(self, project: str = "p1") -> Batch:
        batch = await self.world.validating(project=project)
        lease = await self.world.validation(batch)
        assert await self.world.store.lifecycle.reject(lease, [], 0, self.world.now)
        return batch

    async def tick(self) -> None:
        """One tick, and what it began is over but for those that are silent."""
        await self.loop.tick(self.world.now)
        await until(lambda: len(self.loop._under_way) <= self.held)

    @property
    def held(self) -> int:
        """Deliveries that a silent receiver holds."""
        if self.receivers.go_on.is_set():
            return 0
        return sum(url in self.receivers.silent for url, *_ in self.receivers.sent)

    async def states(self, endpoint_id: str) -> list[str]:
        found = await self.world.store.outbox.page("p1", endpoint_id, after=None, limit=99)
        return [each.state for each in found]


@pytest.fixture
async def env(tmp_path: Path) -> AsyncIterator[Env]:
    path = tmp_path / "lowtide.db"
    place_empty_database(path)
    store = SqlStore.sqlite(path)
    await store.open()
    env = Env(store)
    yield env
    env.receivers.go_on.set()
    await env.loop.aclose(1.0)
    await store.aclose()


async def test_an_event_is_sent_signed_and_recorded(env: Env) -> None:
    hook = await env.endpoint()
    batch = await env.ended()
    await env.tick()
    ((url, headers, body),) = env.receivers.sent
    event_id = event_id_of(batch.id)
    assert url == "https://p1.example/"
    assert headers["webhook-id"] == event_id
    assert headers["webhook-timestamp"] == str(int(env.clock.now().timestamp()))
    assert body == payload_of(event_id, "batch.failed", batch.id, env.world.now)
    assert await env.states(hook) == ["delivered"]


async def test_a_retry_has_the_same_id_and_bytes_and_a_fresh_timestamp(env: Env) -> None:
    await env.endpoint()
    await env.ended()
    env.receivers.answers["https://p1.example/"] = Attempt(500)
    await env.tick()
    await env.tick()
    assert len(env.receivers.sent) == 1
    env.pass_time(limits.WEBHOOK_RETRIES_S[0])
    env.receivers.answers.clear()
    await env.tick()
    (_, first, body), (_, second, again) = env.receivers.sent
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 5
    assert first["webhook-signature"] != second["webhook-signature"]


async def test_a_silent_receiver_holds_up_no_other(env: Env) -> None:
    other = await env.world.organization()
    await env.endpoint()
    await env.endpoint("p2", other.id)
    env.receivers.silent.add("https://p1.example/")
    await env.ended()
    await env.ended("p2")
    await env.tick()
    env.receivers.silent.add("https://none.example/")
    assert sorted(url for url, *_ in env.receivers.sent) == [
        "https://p1.example/",
        "https://p2.example/",
    ]
    found = await env.world.store.outbox.claim("w2", env.world.now, 9.0, free=9, most=9)
    assert found == []


async def test_no_more_are_under_way_than_there_are_places(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBHOOKS_IN_FLIGHT", 2)
    await env.endpoint()
    env.receivers.silent.add("https://p1.example/")
    for _ in range(3):
        await env.ended()
    await env.loop.tick(env.world.now)
    await env.loop.tick(env.world.now)
    await until(lambda: len(env.receivers.sent) >= 2)
    assert len(env.receivers.sent) == 2
    env.receivers.go_on.set()
    await until(lambda: env.woken > 0)  # a place has come free: the loop asks for a tick at once
    await env.tick()
    assert len(env.receivers.sent) == 3


async def test_one_organization_has_no_more_under_way_than_its_share(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBHOOKS_IN_FLIGHT_SHARE", 1)
    await env.endpoint()
    env.receivers.silent.add("https://p1.example/")
    await env.ended()
    await env.ended()
    await env.loop.tick(env.world.now)
    await env.loop.tick(env.world.now)
    await env.receivers.came.wait()
    assert len(env.receivers.sent) == 1


async def test_what_is_under_way_at_the_end_is_free_for_whoever_comes_next(env: Env) -> None:
    hook = await env.endpoint()
    env.receivers.silent.add("https://p1.example/")
    await env.ended()
    await env.tick()
    await env.receivers.came.wait()
    await env.loop.aclose(0.0)
    assert await env.states(hook) == ["pending"]
    (found,) = await env.world.store.outbox.claim("w2", env.world.now, 9.0, free=9, most=9)
    assert found.delivery.attempts == 0
    await env.loop.tick(env.world.now)
    assert len(env.receivers.sent) == 1


async def test_an_attempt_that_could_not_be_recorded_is_made_again_when_its_lease_ends(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = await env.endpoint()
    await env.ended()

    async def away(self: SqlOutbox, claimed: ClaimedDelivery, *rest: object) -> Recorded | None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(SqlOutbox, "record", away)
        await env.tick()
    await env.tick()
    assert len(env.receivers.sent) == 1
    env.world.pass_time(limits.WEBHOOK_LEASE_S)
    await env.tick()
    ids = {headers["webhook-id"] for _, headers, _ in env.receivers.sent}
    assert (len(env.receivers.sent), len(ids)) == (2, 1)
    assert await env.states(hook) == ["delivered"]


async def test_a_disabled_endpoint_is_told_in_the_log(
    env: Env, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = await env.endpoint()
    await env.ended()
    env.receivers.answers["https://p1.example/"] = Attempt(410)
    await env.tick()
    reported = capsys.readouterr()
    assert "webhook.disabled" in reported.out + reported.err
    assert hook in reported.out + reported.err


async def test_what_is_long_over_is_forgotten(env: Env) -> None:
    hook = await env.endpoint()
    await env.ended()
    await env.tick()
    env.pass_time(limits.WEBHOOK_DELIVERIES_KEEP_S + 1)
    await env.tick()
    assert await env.states(hook) == []
