"""The progress of batches, as their pages and the API tell it, over a real store."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from skipping_clock import SkippingClock

from lowtide.config import Settings
from lowtide.core.batches.batch import Batch
from lowtide.core.reporting.progress import Progress
from lowtide.core.reporting.standing import NOTHING_KNOWN, Asleep, Hold, Standing
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.batches.progress import ProgressService
from testkit.manual_worker import ManualWorker
from testkit.statements import statements

P = "proj_default"


class Env:
    """A service, and what the workers tell."""

    def __init__(self, store: Store, clock: SkippingClock, **more: Any) -> None:
        self.standing = NOTHING_KNOWN
        self._store = store
        quotas = Quotas(store.tenants, store.ledger, clock, Settings().limits)
        self.progress = ProgressService(store, clock, quotas, self._standing, **more)

    async def _standing(self) -> Standing:
        return self.standing

    async def get(self, batch_id: str) -> Batch:
        batch = await self._store.batches.get(P, batch_id)
        assert batch is not None
        return batch

    async def progress_of(self, batch_id: str) -> Progress:
        (progress,) = await self.progress.of([await self.get(batch_id)])
        return progress


@pytest.fixture
def env(store: Store, clock: SkippingClock) -> Env:
    return Env(store, clock)


async def test_a_batch_that_waits_behind_others_says_so(env: Env, worker: ManualWorker) -> None:
    for batch_id, requests in (("batch_1", 5), ("batch_2", 2)):
        await worker.submit(await worker.upload(requests), batch_id)
        await worker.plan()
    env.standing = Standing(live=("w1",), models={"test-model": None})
    progress = await env.progress_of("batch_2")
    assert progress.stage == "queuing"
    assert progress.reason == "Queued with 5 requests of other batches for the same models."
    assert await env.progress.waiting() == 7


async def test_a_batch_whose_models_nobody_serves_says_so(env: Env, worker: ManualWorker) -> None:
    await worker.submit(await worker.upload(3), "batch_1")
    await worker.plan({"big": 1, "small": 1, "fine": 1})
    silent = Hold("unreachable", "http://a:1: it does not answer", "its engine does not answer")
    env.standing = Standing(live=("w1",), models={"small": silent, "fine": None})
    assert (await env.get("batch_1")).model is None
    assert (await env.progress_of("batch_1")).reason == (
        "No replica serves the model big."
        " The model small is not available: its engine does not answer."
    )


async def test_progress_of_many_keeps_their_order(env: Env, worker: ManualWorker) -> None:
    for batch_id in ("batch_1", "batch_2"):
        await worker.submit(await worker.upload(2), batch_id)
    await worker.plan()
    batches = [await env.get("batch_2"), await env.get("batch_1")]
    assert [each.stage for each in await env.progress.of(batches)] == ["validation", "queuing"]


async def test_a_batch_for_a_model_at_zero_says_when_it_wakes(
    store: Store, worker: ManualWorker, clock: SkippingClock
) -> None:
    asked_for: list[int] = []

    async def asleep() -> Mapping[str, Asleep]:
        asked_for.append(1)
        return {"test-model": Asleep(clock.now() + timedelta(hours=3))}

    env = Env(store, clock, asleep=asleep)
    await worker.submit(await worker.upload(2), "batch_1")
    await worker.plan()
    batch = await env.get("batch_1")
    for models, is_asleep in (({}, True), ({"test-model": None}, False)):
        env.standing = Standing(live=("w1",), models=models, knows_all_batches=True)
        for progress in await env.progress.of([batch, batch]):
            assert ("is scaled to zero, wakes at" in (progress.reason or "")) == is_asleep
    assert asked_for == [1], "once for all batches, and of models that are served nothing"


@pytest.mark.parametrize("number", [1, 3])
async def test_the_paces_of_batches_that_run_are_read_in_one_statement(
    env: Env, worker: ManualWorker, number: int
) -> None:
    for each in range(number):
        await worker.submit(await worker.upload(4), f"batch_{each}")
        await worker.plan()
        await worker.lease(f"batch_{each}")
        await worker.settle(f"batch_{each}", ok=[1])
    env.standing = Standing(live=("w1",), models={"test-model": None})
    batches = [await env.get(f"batch_{each}") for each in range(number)]
    with statements() as asked:
        await env.progress.of(batches)
    assert len([each for each in asked if "batch_history" in each or "batch_notes" in each]) == 1
