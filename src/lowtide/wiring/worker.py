"""The loops of one process, wired to each other: what `--role worker` is, and `all` has beside
the HTTP API."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import structlog

from lowtide import limits
from lowtide.core.accounts.charged_usage import UsageMeter
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.reporting.batch_watch import BatchWatch
from lowtide.core.reporting.replica_watch import ReplicaSnapshot
from lowtide.core.reporting.tally import Tallies
from lowtide.core.reporting.worker_report import ScalerReport, SourceReport, WorkerReport
from lowtide.engines.http.client import HttpEngine
from lowtide.loops.batches.housekeeping import ExpireLoop, SweepLoop
from lowtide.loops.batches.task_lease import Wake
from lowtide.loops.batches.token_queue import TokenQueueLoop
from lowtide.loops.batches.unpause import UnpauseLoop
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.dispatch.chunks import ChunkClaims, ChunkReader
from lowtide.loops.dispatch.commit import Committer
from lowtide.loops.dispatch.dispatch import Dispatcher
from lowtide.loops.dispatch.leasing import Leasing
from lowtide.loops.dispatch.outcomes import Outcomes
from lowtide.loops.history.record import HistoryLoop
from lowtide.loops.listen import ListenLoop
from lowtide.loops.local_wakeups import LocalWakeups
from lowtide.loops.replicas.ownership import OwnershipLoop
from lowtide.loops.replicas.replica_set import ReplicaMember
from lowtide.loops.replicas.report import NO_PLACES, PlaceReports, ReportLoop
from lowtide.loops.replicas.window_control import ControlLoop, EngineProbeLoop, ReplicaControl
from lowtide.loops.runner import Loop, Loops
from lowtide.loops.scheduling.urgency import UrgencyLoop
from lowtide.loops.webhooks.deliver import DeliverLoop
from lowtide.ports.store import Store, StoreError
from lowtide.telemetry.replica_metrics import ReplicaMetrics
from lowtide.telemetry.work_metrics import COMMIT_SECONDS, WorkMetrics
from lowtide.wiring.parts import Parts
from lowtide.wiring.task_places import PLACES, TaskPlaces

log = structlog.get_logger(__name__)


class Worker:
    """Runs while the context `running` is open."""

    def __init__(
        self,
        parts: Parts,
        upstreams: Sequence[Upstream],
        worker_id: str,
        wakeups: LocalWakeups,
        outcomes: Outcomes,
        *,
        shared: Mapping[str, Replica] | None = None,
        controlled: Sequence[ReplicaControl] = (),
        on_commit: Callable[[], None] = lambda: None,
        places: PlaceReports = NO_PLACES,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`upstreams` and `controlled`, those whose windows follow their engines, may change at run
        time; then call `replicas_changed`. `shared` are those of `upstreams` that other workers may
        list, too, by the name that all use; None where no other worker can. `outcomes` wakes
        "commit" of `wakeups`; `on_commit` is called after each commit. `draw` gives numbers in
        [0, 1) for back-off."""
        store, blobs, clock = parts.store, parts.blobs, parts.clock
        dispatch = parts.settings.dispatch
        ttl_s = dispatch.lease_ttl_s
        self.id = worker_id
        self._work = store.work
        self._clock = clock
        self._upstreams = upstreams
        self._lists_all = shared is None
        self._calibrations = parts.calibrations
        self.wake = wakeups.wake
        self._dispatcher = self._hands(parts, outcomes, draw)
        self._committer = Committer(
            worker_id,
            store.work,
            blobs,
            parts.new_id,
            outcomes,
            self._dispatcher,
            commit_interval_s=dispatch.commit_interval_s,
            lease_ttl_s=ttl_s,
            on_settled=lambda: self.wake("assemble"),
            on_commit=self._committed,
            prices=lambda: parts.catalogue.prices,
            monotonic=clock.monotonic,
        )
        self._on_commit = on_commit
        self._places = places
        self._tasks = TaskPlaces(
            worker_id, store, blobs, clock, parts.planner, parts.quotas, self.wake,
            lease_ttl_s=ttl_s,
        )  # fmt: skip
        self._deliveries = self._delivering(parts)
        self._work_metrics = WorkMetrics()
        self._report = ReportLoop(
            self.id, store.worker_reports, clock, self, on_update=self._show_metrics
        )
        self._metrics = ReplicaMetrics()
        self._control = self._steering(controlled)
        loops: list[Loop] = [
            *self._tasks.loops,
            self._dispatcher,
            self._committer,
            self._calibrations,
            self._report,
            HistoryLoop(store.history, clock, self.batch_watch.moved_since),
            self._deliveries,
            *_maintenance_loops(parts, self.wake),
            self._control,
            EngineProbeLoop(controlled, clock),
        ]
        self._ownership = None if shared is None else self._share(worker_id, store, shared, ttl_s)
        self._loops = Loops([*loops, *([self._ownership] if self._ownership else [])], clock)
        self._drain: asyncio.Task[None] | None = None
        self._is_running = False
        wakeups.listen(self._woken)

    def _woken(self, name: str) -> None:
        """Passes a wake-up on. New work and cancelled work both reach the dispatcher
        through a commit.
        """
        if name == "dispatch":
            self._dispatcher.announce()
            self._loops.wake("commit")
            return
        if name == "ownership" and self._ownership is not None:
            self._ownership.announce()
        for place in PLACES.get(name, (name,)):
            self._loops.wake(place)

    def replicas_changed(self, members: Sequence[ReplicaMember], touched: Collection[str]) -> None:
        """See `loops.replicas.replica_set.Follower`."""
        self._control.watch_live_calls()
        self._metrics.keep(member.replica.name for member in members)
        self._dispatcher.replicas_changed(touched)
        if self._ownership is not None:
            shared = {m.shared_as: m.replica for m in members if m.shared_as is not None}
            own = [member.replica for member in members if member.shared_as is None]
            self._ownership.replicas_changed(shared, own)
            self._loops.wake("ownership")
        self._loops.wake("probe")
        self.wake("models")  # what an engine that has come serves is asked of it at once

    def take_back(self, replica_name: str) -> None:
        """See `loops.replicas.replica_set.Follower`."""
        self._dispatcher.take_back(replica_name)

    def served_models(self) -> frozenset[str] | None:
        """The models of all replicas that are listed here; None where none is, and other
        workers may have some.
        """
        if not self._upstreams and not self._lists_all:
            return None
        return frozenset(model for replica in self.replicas for model in replica.models)

    def _committed(self, seconds: float) -> None:
        COMMIT_SECONDS.observe(seconds)
        self._on_commit()

    def _show_metrics(
        self, snapshots: Sequence[ReplicaSnapshot], conditions: Mapping[str, str]
    ) -> None:
        connections = {
            upstream.replica.name: upstream.engine.connections_open
            for upstream in self._upstreams
            if isinstance(upstream.engine, HttpEngine)
        }
        self._work_metrics.show_replicas(snapshots, conditions, connections)
        self._work_metrics.show_work(self.tallies)
        self._work_metrics.show_commits(self._committer.failures, self._committer.uncommitted_bytes)

    def report(self) -> WorkerReport | None:
        """The worker's report of now; None while it does not run."""
        return self._report.report() if self._is_running else None

    # -- Workings: what the report is made of ------------------------------------------------------

    @property
    def replicas(self) -> Sequence[Replica]:
        return [upstream.replica for upstream in self._upstreams]

    @property
    def sources(self) -> tuple[SourceReport, ...]:
        return self._places.sources()

    @property
    def scalers(self) -> tuple[ScalerReport, ...]:
        return self._places.scalers()

    @property
    def tallies(self) -> Tallies:
        return self._dispatcher.tallies

    @property
    def batch_watch(self) -> BatchWatch:
        return self._dispatcher.batch_watch

    @property
    def leased_batches(self) -> frozenset[str]:
        return self._dispatcher.leased_batches

    @property
    def results_error(self) -> str | None:
        return self._committer.error or self._tasks.assembly_error

    @property
    def validation_error(self) -> str | None:
        return self._tasks.validation_error

    @property
    def validating(self) -> tuple[str, datetime] | None:
        return self._tasks.validating

    def begin_drain(self) -> None:
        """Stops claiming; leaving `running` waits for what is in flight."""
        if self._drain is None:
            self._drain = asyncio.create_task(self._let_finish(), name="drain")
            if self._ownership is not None:
                self._ownership.drain()
                self._loops.wake("ownership")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs until left; then stops claiming, finishes or gives back, and commits what
        finished.
        """
        await self._calibrations.load()  # before a batch is validated
        self._report.observe(self._clock.monotonic())
        async with self._loops:
            self._is_running = True
            try:
                yield
            finally:
                self.begin_drain()
                assert self._drain is not None
                await asyncio.shield(self._drain)
        await self._committer.finish(self._clock.now())
        await self._give_up()
        await self._calibrations.tick(self._clock.now())

    async def _let_finish(self) -> None:
        """Ends what was claimed: calls, a validation, an assembly. What has not ended in time is
        cancelled by the end of the loops, and given back."""
        within_s = limits.DRAIN_S
        await asyncio.gather(
            self._dispatcher.drain(within_s),
            self._loops.finish(*self._tasks.names, within_s=within_s),
            self._end_deliveries(within_s),
        )

    async def _end_deliveries(self, within_s: float) -> None:
        await self._loops.finish(self._deliveries.name, within_s=within_s)
        await self._deliveries.aclose(within_s)

    async def _give_up(self) -> None:
        """Frees what is still held: a claim that was cancelled on its way leased all the same."""
        if self._ownership is not None:
            await self._ownership.leave()
        self._is_running = False
        await self._report.leave()
        try:
            await self._work.release_worker(self.id, self._clock.now())
        except StoreError as error:  # the leases will run out
            log.warning("worker.not_released", error=str(error))

    def _steering(self, controlled: Sequence[ReplicaControl]) -> ControlLoop:
        return ControlLoop(
            controlled,
            self._dispatcher,
            self._clock,
            on_update=self._metrics.show,
            wake=lambda: self._loops.wake("dispatch"),
        )

    def _hands(self, parts: Parts, outcomes: Outcomes, draw: Callable[[], float]) -> Dispatcher:
        dispatch, quotas = parts.settings.dispatch, parts.quotas
        core = Dispatch(attempts_max=dispatch.attempts_max)
        claims = ChunkClaims(
            self.id,
            parts.store.work,
            dispatch.lease_ttl_s,
            lambda: quotas.defaults.requests_in_flight,
        )
        reader = ChunkReader(core, parts.blobs, parts.store.lifecycle.lose_input)
        leasing = Leasing(claims, reader, self._upstreams, lambda: parts.catalogue.hours)
        return Dispatcher(
            leasing,
            outcomes,
            self._clock,
            lambda: self._loops.wake("dispatch"),
            draw,
            on_answer=parts.calibrations.finished,
            meter=UsageMeter(lambda: quotas.defaults.missing_usage),
        )

    def _delivering(self, parts: Parts) -> DeliverLoop:
        return DeliverLoop(
            self.id,
            parts.store.outbox,
            parts.sender,
            self._clock,
            lambda: self._loops.wake("webhooks"),
        )

    def _share(
        self, worker_id: str, store: Store, shared: Mapping[str, Replica], lease_ttl_s: float
    ) -> OwnershipLoop:
        replicas = [upstream.replica for upstream in self._upstreams]
        named = list(shared.values())
        return OwnershipLoop(
            worker_id,
            store.ownership,
            self._clock,
            shared,
            [replica for replica in replicas if replica not in named],
            self._dispatcher,
            lease_ttl_s=lease_ttl_s,
        )


def _maintenance_loops(parts: Parts, wake: Wake) -> list[Loop]:
    """The loops for what time alone makes due, and for what other processes announce."""
    store = parts.store
    return [
        ExpireLoop(store.lifecycle, store.work, wake),
        SweepLoop(store.results, parts.blobs, parts.clock),
        UnpauseLoop(store.ledger, wake),
        TokenQueueLoop(store.token_queue, parts.quotas, wake),
        UrgencyLoop(parts.backlog, wake),
        ListenLoop(store.wakeups, wake),
    ]
