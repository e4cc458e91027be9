"""One process of Lowtide: everything it is made of, opened in order and closed in reverse."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog

from lowtide import limits
from lowtide.blobs.url import open_blobs
from lowtide.config import ReplicaSettings, Settings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.replicas.served_models import ALL
from lowtide.core.scheduling.reply_budget import ReplyBudget
from lowtide.data_dir import locked_data_dir
from lowtide.loops.batches.overview import OverviewLoop
from lowtide.loops.dispatch.outcomes import Outcomes
from lowtide.loops.dispatch.trials import TrialLoop
from lowtide.loops.local_wakeups import LocalWakeups
from lowtide.loops.replicas.models import ModelsLoop
from lowtide.loops.replicas.replica_set import ReplicaSet
from lowtide.loops.replicas.report import PlaceReports
from lowtide.loops.replicas.seen_models import SeenModelsLoop
from lowtide.loops.runner import Loop, Loops
from lowtide.loops.scheduling.backlog import BacklogLoop
from lowtide.loops.scheduling.scale import ScaleLoop
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store, StoreError
from lowtide.service.live.live import LiveService
from lowtide.service.scale import ModelScale
from lowtide.service.services import Services
from lowtide.system import SystemClock, new_id
from lowtide.telemetry.scale_metrics import begin_scale, show_scale
from lowtide.telemetry.work_metrics import OverviewMetrics
from lowtide.wiring.database import check_server, is_single_machine, store_of
from lowtide.wiring.flex import flex_results
from lowtide.wiring.live_rates import rates_of, sharing_rates
from lowtide.wiring.parts import Parts, parts_of
from lowtide.wiring.reload import Reload
from lowtide.wiring.replicas.embedded_model import EmbeddedModel
from lowtide.wiring.replicas.engines import Engines
from lowtide.wiring.replicas.history import replica_history
from lowtide.wiring.replicas.open_replica import Calling, open_replica
from lowtide.wiring.replicas.scalers import EngineScalers
from lowtide.wiring.replicas.sources import EngineSources
from lowtide.wiring.services import build_services, standings_of, upload_secret
from lowtide.wiring.worker import Worker

if TYPE_CHECKING:
    from starlette.applications import Starlette

log = structlog.get_logger(__name__)

Role = Literal["all", "api", "worker"]


@dataclass(frozen=True, slots=True)
class Application:
    """A running Lowtide. `asgi` is None in a process that has no HTTP API (`--role worker`)."""

    settings: Settings
    asgi: "Starlette | None"
    catalogue: Catalogue
    store: Store
    blobs: Blobs
    begin_drain: Callable[[], None]
    """Makes the process not ready and stops claims; call it when asked to stop, so that the drain
    passes while the HTTP API closes.
    """
    reload: Reload
    """Takes over other settings; see wiring/reload.py."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models known at present."""
        return tuple(self.catalogue.entries)


@asynccontextmanager
async def open_application(
    settings: Settings,
    *,
    role: Role = "all",
    embedded: EmbeddedModel | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Application]:
    """Starts everything; leaving the context drains (within `limits.DRAIN_S`) and closes.

    `on_progress` is called with what start-up is busy with, in words for a person. Raises
    ConfigError, DataDirError, StoreError, BlobError, ModelSourceError, EngineStartError.
    """
    async with AsyncExitStack() as stack:
        data_dir = stack.enter_context(locked_data_dir(settings.server.data_dir))
        clock = SystemClock()
        store = await _open_store(settings, clock, stack)
        blobs = open_blobs(settings.server.blob_url, data_dir / "blobs")
        await blobs.probe()
        own = await _embedded_engine(embedded, data_dir, stack, on_progress) if embedded else None
        wakeups = LocalWakeups()
        outcomes = Outcomes(lambda: wakeups.wake("commit"))
        # Answers that no commit has stored yet take of the memory that replies share.
        replies = ReplyBudget(backlog=lambda: outcomes.uncommitted_bytes)
        engines = _engines(settings, own, clock, replies, stack)
        replicas, catalogue = engines.replicas, engines.catalogue
        sources = _sources(engines, wakeups, clock, stack)
        scalers = EngineScalers(clock, data_dir, lambda: wakeups.wake("scalers"))
        scalers.configure(settings)
        parts = parts_of(settings, store, blobs, clock, catalogue)
        places = PlaceReports(sources.reports, scalers.reports)
        worker = _worker(parts, replicas, wakeups, outcomes, replies, places)
        if is_single_machine(settings):
            await _release_previous_process(store, worker.id, clock)
        rates = rates_of(settings)
        live = LiveService(catalogue, replicas.live, clock, parts.quotas, replies, rates)
        services = await _services(parts, worker, live, data_dir, stack)
        asgi = _http_api(services) if role != "worker" else None
        lists = await listing(settings, engines, sources, store, clock)
        wakeups.listen((await stack.enter_async_context(lists)).wake)
        tallies = worker.tallies if role != "api" else None
        recording = replica_history(store.history, replicas, tallies, clock)
        await stack.enter_async_context(Loops([recording], clock))
        if role != "worker":
            alone = role == "api"
            await stack.enter_async_context(_watching(replicas, services, parts, is_alone=alone))
            holds = flex_results(settings, services.flex, store, clock, wakeups, alone=alone)
            await stack.enter_async_context(holds)
        if role != "api":
            await stack.enter_async_context(worker.running())
            await stack.enter_async_context(_overview(worker.id, services, parts))
            ownership = None if is_single_machine(settings) else store.ownership
            asking = scalers.running(services.scale, worker.id, ownership)
            wakeups.listen(await stack.enter_async_context(asking))
        yield Application(
            settings=settings,
            asgi=asgi,
            catalogue=catalogue,
            store=store,
            blobs=blobs,
            begin_drain=partial(_begin_drain, services, worker if role != "api" else None),
            reload=Reload(settings, engines, sources, scalers, parts.quotas),
        )


async def _embedded_engine(
    embedded: EmbeddedModel,
    data_dir: Path,
    stack: AsyncExitStack,
    on_progress: Callable[[str], None],
) -> tuple[ReplicaSettings, ModelEntry]:
    from lowtide.wiring.replicas.embedded import start_embedded  # most servers have none

    return await start_embedded(embedded, data_dir, stack, on_progress)


def _worker(
    parts: Parts,
    replicas: ReplicaSet[Calling],
    wakeups: LocalWakeups,
    outcomes: Outcomes,
    replies: ReplyBudget,
    places: PlaceReports,
) -> Worker:
    """The worker of this process, which follows its replicas; it does not run yet."""
    settings = parts.settings
    worker = Worker(
        parts,
        replicas.upstreams,
        _worker_id(settings),
        wakeups,
        outcomes,
        shared=None if is_single_machine(settings) else replicas.shared,
        controlled=replicas.controlled,
        on_commit=replies.resume_waiting,
        places=places,
    )
    replicas.follow(worker)
    return worker


def _begin_drain(services: Services, worker: Worker | None) -> None:
    """`worker` None: none runs in this process."""
    services.readiness.begin_drain()
    services.flex.begin_drain()
    if worker is not None:
        worker.begin_drain()


async def _services(
    parts: Parts, worker: Worker, live: LiveService, data_dir: Path, stack: AsyncExitStack
) -> Services:
    """The services. Leaving `stack` writes down when keys were last used. Raises
    StoreError, OSError.
    """
    standings = standings_of(parts, worker)
    services = build_services(
        parts, worker, live, standings, upload_secret(parts.settings, data_dir)
    )
    stack.push_async_callback(parts.sender.aclose)
    stack.push_async_callback(services.access.flush)
    stack.push_async_callback(services.completions.aclose)
    await standings.now()
    if parts.settings.auth.mode == "keys" and not await parts.store.tenants.keys():
        log.warning("keys.none", hint="nobody can call: make a key with `lowtide keys create`")
    return services


def _engines(
    settings: Settings,
    embedded: tuple[ReplicaSettings, ModelEntry] | None,
    clock: Clock,
    replies: ReplyBudget,
    stack: AsyncExitStack,
) -> Engines:
    """The engines of the settings and the embedded one; nothing is sent to them yet."""
    replicas = ReplicaSet(partial(open_replica, replies=replies), clock)
    stack.push_async_callback(replicas.aclose)
    engines = Engines(replicas, Catalogue(), embedded)
    engines.configure(settings)
    return engines


def _sources(
    engines: Engines, wakeups: LocalWakeups, clock: Clock, stack: AsyncExitStack
) -> EngineSources:
    """The places where engines are found; none is asked yet."""
    sources = EngineSources(engines, clock, lambda: wakeups.wake("sources"))
    stack.push_async_callback(sources.loop.aclose)
    return sources


async def listing(
    settings: Settings, engines: Engines, sources: EngineSources, store: Store, clock: Clock
) -> Loops:
    """The loops that find out which engines and models there are, from the sources, from this
    process's engines and from what other workers report.

    All are asked once before the first batch can come, for their answers decide what it may name.
    """
    sources.configure(settings)
    await sources.loop.start(clock.now())
    parts: list[Loop] = [ModelsLoop(lambda: engines.replicas.members, engines.listed)]
    if not is_single_machine(settings):
        parts.append(SeenModelsLoop(store.worker_reports, engines.seen))
    lists_none = not settings.replica and not is_single_machine(settings)
    asks_engines = any(ALL in replica.models for replica in settings.replica)
    if lists_none or asks_engines or settings.source:
        # Engines tell what there is, and may be away now: what batches name was there once.
        engines.seen(sorted(await store.work.named_models(limits.MODELS_SEEN_MAX)))
    with contextlib.suppress(TimeoutError, StoreError):
        async with asyncio.timeout(limits.MODELS_START_S):
            await asyncio.gather(*(part.tick(clock.now()) for part in parts))
    return Loops([*parts, sources.loop], clock)


@asynccontextmanager
async def _watching(
    replicas: ReplicaSet[Calling], services: Services, parts: Parts, *, is_alone: bool
) -> AsyncIterator[None]:
    """The loops beside the HTTP API: one judges failures of live calls, where no dispatcher of this
    process calls the replica; one looks how many replicas are wanted; one shares rates;
    one reads the backlog ahead.
    """
    clock = parts.clock
    trials = TrialLoop(replicas.upstreams, clock, is_alone=is_alone)
    more = ScaleLoop(services.scale, _show_scale), BacklogLoop(parts.backlog)
    async with (
        sharing_rates(services.live.rates, parts.store.live_rates, clock),
        Loops([trials, *more], clock),
    ):
        try:
            yield
        finally:
            await trials.aclose()


def _show_scale(scales: Mapping[str, ModelScale], now: datetime) -> None:
    begin_scale()
    for model, scale in scales.items():
        show_scale(model, scale.wanted, scale.present, scale.work_seconds, scale.due, now)


def _overview(worker_id: str, services: Services, parts: Parts) -> Loops:
    """The loop that counts all batches and logs which wait, and why."""
    progress, show = services.progress.of, OverviewMetrics().show
    store, clock = parts.store, parts.clock
    overview = OverviewLoop(
        worker_id, store.capacity, parts.backlog, store.worker_reports, clock, progress, show
    )
    return Loops([overview], clock)


def _http_api(services: Services) -> "Starlette":
    # Here, for it is a third of what a process loads, and a worker or a command has no HTTP API.
    from lowtide.api.app import create_app

    return create_app(services)


async def _open_store(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Store:
    store = store_of(settings)
    stack.push_async_callback(store.aclose)
    await store.open()
    await check_server(store, clock, settings.dispatch.lease_ttl_s)
    return store


async def _release_previous_process(store: Store, worker_id: str, clock: Clock) -> None:
    """Releases what the former process held: the lock says that it is gone."""
    await store.work.release_worker(worker_id, clock.now())
    await store.uploads.let_all_go()
    await store.outbox.release(worker_id)


def _worker_id(settings: Settings) -> str:
    """One name per data directory on one machine; a fresh one per process among many."""
    return "local" if is_single_machine(settings) else new_id(f"{socket.gethostname()}-")
