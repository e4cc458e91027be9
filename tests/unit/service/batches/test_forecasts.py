"""What the verbs foresee of batches, over a real store that saw commits."""

import msgspec
import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.config import LimitSettings, Settings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.errors import LowtideError
from lowtide.core.reporting.standing import Standing
from lowtide.core.scheduling.fair_queue import work_of
from lowtide.core.scheduling.forecast import CELLS, HourOfWeek
from lowtide.core.validation.planner import Planner
from lowtide.core.validation.validator import Validator
from lowtide.ports.blobs import Blobs
from lowtide.ports.capacity import Capacity
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.batches.batches import BatchService, Created
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.batches.new_batch import NewBatch
from lowtide.service.batches.progress import ProgressService
from lowtide.service.scheduling.backlog_reading import BacklogReadings
from testkit.manual_worker import USAGE, ManualWorker

P, U = "proj_default", "user_default"


async def _well() -> Standing:
    return Standing(live=("w1",), models={"test-model": None})


class Env:
    """The verbs, and a pool that answers one request a second."""

    def __init__(
        self, store: Store, blobs: Blobs, clock: SkippingClock, worker: ManualWorker, **bounds: str
    ) -> None:
        settings = Settings(limits=LimitSettings(**bounds))  # type: ignore[arg-type]
        catalogue = Catalogue([ModelEntry(id="test-model")])
        self.clock, self.worker, self.ids = clock, worker, iter(range(1, 100))
        planner = Planner(catalogue, lambda: settings.limits)
        self.forecasts = Forecasts(
            BacklogReadings(store.capacity, clock), blobs, catalogue, planner
        )
        allowance = Quotas(store.tenants, store.ledger, clock, settings.limits)
        self.verbs = BatchService(
            store,
            catalogue,
            clock,
            lambda prefix: f"{prefix}{next(self.ids):024d}",
            allowance,
            lambda _: None,
            self.forecasts,
        )
        self.progress = ProgressService(store, clock, allowance, _well, self.forecasts)

    async def create(self, requests: int, **asked: str) -> Created:
        file = await self.worker.upload(requests)
        endpoint = "/v1/chat/completions"
        new = NewBatch(input_file_id=file.id, endpoint=endpoint, **asked)  # type: ignore[arg-type]
        return await self.verbs.create(P, U, new)

    async def learn(self, requests: int = 120) -> None:
        """One batch, settled a request a second."""
        created = await self.create(requests)
        await self.worker.plan()
        await self.settle(created.batch.id, range(1, requests + 1))

    async def settle(self, batch_id: str, lines: range) -> None:
        for line in lines:
            if line == lines.start:
                await self.worker.lease(batch_id)
            self.clock.advance(1)
            await self.worker.settle(batch_id, ok=[line])
        await self.worker.let_go(batch_id)


@pytest.fixture
def env(store: Store, blobs: Blobs, clock: SkippingClock, worker: ManualWorker) -> Env:
    return Env(store, blobs, clock, worker)


async def test_nothing_is_foreseen_while_nothing_was_learnt(env: Env) -> None:
    created = await env.create(50)
    assert (created.verdict.kept, created.warning) == ("unknown", None)
    await env.worker.plan()
    (progress,) = await env.progress.of([await env.verbs.get(P, created.batch.id)])
    assert (progress.eta_s, progress.verdict.kept) == (None, "unknown")


async def test_a_batch_that_fits_its_window_is_feasible_and_has_an_end(env: Env) -> None:
    await env.learn()
    created = await env.create(60)
    assert (created.verdict.kept, created.warning) == ("feasible", None)
    await env.worker.plan()
    env.clock.advance(3)
    (progress,) = await env.progress.of([await env.verbs.get(P, created.batch.id)])
    assert progress.verdict.kept == "feasible"
    # Planned with 10 tokens of input a request, and answers as learnt: as USAGE, but uncached.
    planned = 60 * (work_of(USAGE) + 10 - (6 + 0.1 * 4))
    assert progress.eta_s == pytest.approx(planned / work_of(USAGE), rel=0.05)
    assert progress.completion_at is not None


async def test_a_window_that_cannot_be_kept_is_said_with_the_one_that_could(env: Env) -> None:
    await env.learn()
    created = await env.create(20_000, completion_window="1h")
    assert created.verdict.kept == "infeasible"
    assert created.verdict.earliest_window_s is not None
    assert created.verdict.earliest_window_s % 3600 == 0
    assert created.warning is not None and "its window ends in 1 h" in created.warning
    assert "The shortest completion window that could be kept" in created.warning


async def test_what_others_have_queued_counts(env: Env) -> None:
    await env.learn()
    await env.create(2500, completion_window="1h")
    await env.worker.plan()
    env.clock.advance(3)
    created = await env.create(2500, completion_window="1h")
    assert created.verdict.kept == "infeasible"
    assert "With what is due before it" in (created.warning or "")


async def test_an_installation_may_refuse_such_windows(
    store: Store, blobs: Blobs, clock: SkippingClock, worker: ManualWorker
) -> None:
    strict = Env(store, blobs, clock, worker, infeasible="refuse")
    await strict.learn()
    with pytest.raises(LowtideError) as caught:
        await strict.create(20_000, completion_window="1h")
    assert (caught.value.code, caught.value.param) == ("window_infeasible", "completion_window")
    assert (await strict.create(20_000, completion_window="7d")).verdict.kept == "feasible"


async def test_the_end_of_a_batch_counts_those_before_it(env: Env) -> None:
    await env.learn()
    first = await env.create(600, completion_window="1h")
    await env.worker.plan()
    second = await env.create(600)
    await env.worker.plan()
    env.clock.advance(3)
    batches = [await env.verbs.get(P, made.batch.id) for made in (first, second)]
    one, two = await env.progress.of(batches)
    assert one.eta_s is not None and two.eta_s is not None
    assert two.eta_s == pytest.approx(2 * one.eta_s, rel=0.01)
    assert one.eta_s == pytest.approx(600, rel=0.3)


async def test_the_end_comes_nearer_as_the_batch_goes_on(env: Env) -> None:
    await env.learn()
    created = await env.create(128)
    await env.worker.plan()
    await env.settle(created.batch.id, range(1, 65))
    env.clock.advance(3)
    (progress,) = await env.progress.of([await env.verbs.get(P, created.batch.id)])
    assert progress.eta_s == pytest.approx(64, rel=0.2)


async def test_only_the_first_lines_of_a_file_are_judged_at_creation(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    await env.learn()
    judged: list[int] = []
    feed = Validator.feed

    def counting(validator: Validator, piece: bytes) -> None:
        judged.append(piece.count(b"\n"))
        feed(validator, piece)

    monkeypatch.setattr(Validator, "feed", counting)
    created = await env.create(20_000, completion_window="1h")
    assert sum(judged) == limits.FORESIGHT_LINES
    assert created.verdict.kept == "infeasible", "the rest counts, by its bytes"


async def test_a_file_whose_first_lines_are_bad_is_left_to_validation(
    env: Env, store: Store
) -> None:
    await env.learn()
    file = await env.worker.upload(30, model="unknown-model")
    endpoint = "/v1/chat/completions"
    created = await env.verbs.create(P, U, NewBatch(input_file_id=file.id, endpoint=endpoint))
    assert created.verdict.kept == "unknown"


async def test_the_course_of_all_batches_is_told_those_that_are_due_first_first(env: Env) -> None:
    _, empty = await env.forecasts.all()
    assert empty == []
    await env.learn()
    for window in ("24h", "2h"):
        await env.create(60, completion_window=window)
        await env.worker.plan()
    env.clock.advance(3)
    at, (pool,) = await env.forecasts.all()
    assert (at, pool.model) == (env.clock.now(), "test-model")
    assert pool.rate == pytest.approx(work_of(USAGE), rel=0.1)
    ends = [each.end_at for each in pool.courses if each.end_at is not None]
    due = [each.deadline_at for each in pool.courses]
    assert due == sorted(due)
    assert len(ends) == 2
    assert all(each.kept == "feasible" for each in pool.courses)
    eta = [
        each.eta_s
        for each in await env.progress.of(
            [await env.verbs.get(P, each.batch_id) for each in pool.courses]
        )
    ]
    reported = [(end - at).total_seconds() for end in ends]
    assert eta == pytest.approx(reported, abs=0.001), "as each batch tells itself"


@pytest.mark.parametrize(
    ("safe_share", "cautious_eta_s"),
    [(0.5, 1200.0), (0.95, None), (0.0, None)],
    ids=["slow-weeks", "less-than-a-minute", "not-foreseeable"],
)
async def test_the_cautious_end_is_at_the_pace_of_four_weeks_in_five(
    env: Env,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    safe_share: float,
    cautious_eta_s: float | None,
) -> None:
    created = await env.create(600)
    await env.worker.plan()
    learned = await store.capacity.capacity()
    rate = sum(part.cost_left for part in learned.backlog) / 600.0
    cell = HourOfWeek(p20=safe_share * rate, p50=rate, weeks=8)

    async def capacity() -> Capacity:
        cells = {"test-model": dict.fromkeys(range(CELLS), cell)}
        return msgspec.structs.replace(learned, cells=cells)

    monkeypatch.setattr(store.capacity, "capacity", capacity)
    env.clock.advance(3)
    (progress,) = await env.progress.of([await env.verbs.get(P, created.batch.id)])
    assert progress.eta_s == pytest.approx(600.0)
    assert progress.cautious_eta_s == (cautious_eta_s and pytest.approx(cautious_eta_s))


async def test_an_estimate_right_after_a_resume_does_not_count_the_hold(
    env: Env, store: Store
) -> None:
    created = await env.create(200)
    await env.worker.plan()
    await env.settle(created.batch.id, range(1, 41))
    await store.steering.hold(P, created.batch.id, "user", "finish", env.clock.now())
    await env.progress.of([await env.verbs.get(P, created.batch.id)])
    env.clock.advance(7200)
    await store.steering.lift(P, created.batch.id, "user", env.clock.now())
    (progress,) = await env.progress.of([await env.verbs.get(P, created.batch.id)])
    assert progress.eta_s == pytest.approx(160, rel=0.1)


async def test_the_cautious_end_holds_the_measured_pace_where_a_quicker_one_is_foreseen(
    env: Env, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await env.create(200)
    await env.worker.plan()
    await env.settle(created.batch.id, range(1, 101))
    learned = await store.capacity.capacity()
    rate = sum(part.cost_left for part in learned.backlog) / 10
    usual = HourOfWeek(p20=rate, p50=rate, weeks=8)

    async def capacity() -> Capacity:
        cells = {"test-model": dict.fromkeys(range(CELLS), usual)}
        return msgspec.structs.replace(learned, cells=cells, paces={})

    monkeypatch.setattr(store.capacity, "capacity", capacity)
    env.clock.advance(3)
    (progress,) = await env.progress.of([await env.verbs.get(P, created.batch.id)])
    assert progress.eta_s == pytest.approx(10), "at ten requests a second"
    assert progress.cautious_eta_s == pytest.approx(100, rel=0.1), "at one a second, as measured"
