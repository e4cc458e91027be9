"""The composition root: the only place where adapters meet ports.

`open_application` builds everything a process needs from its settings, starts the loops, and on
the way out drains and closes it all in the reverse order. Called by the command line and by tests
that want the real thing.
"""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import structlog
from fastapi import FastAPI

from lowtide import limits
from lowtide.api.app import create_app
from lowtide.blobs.url import open_blobs
from lowtide.config import ConfigError, Settings
from lowtide.config import Replica as ReplicaSettings
from lowtide.core.catalogue import Catalogue, ModelEntry
from lowtide.core.replica import Replica
from lowtide.data_dir import locked_data_dir
from lowtide.engines.embedded import EmbeddedEngine
from lowtide.engines.http_client import HttpEngine
from lowtide.engines.model_source import resolve_model
from lowtide.loops.assemble import AssembleLoop
from lowtide.loops.attempt import Upstream
from lowtide.loops.calibrate import Calibrations
from lowtide.loops.budget import BudgetLoop
from lowtide.loops.commit import Committer
from lowtide.loops.dispatch import Dispatcher
from lowtide.loops.housekeeping import ExpireLoop, SweepLoop
from lowtide.loops.runner import Loop, Loops
from lowtide.loops.validate import ValidateLoop
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import Store
from lowtide.service.access import Access
from lowtide.service.batches import BatchService
from lowtide.service.estimates import EstimateService
from lowtide.service.files import FileService
from lowtide.service.limits import LimitService
from lowtide.service.live import LiveService
from lowtide.service.live_replica import LiveReplica
from lowtide.service.models import ModelService
from lowtide.service.results import ResultReader
from lowtide.service.services import Services
from lowtide.service.signing import UploadSigner, load_secret
from lowtide.service.tenants import TenantService
from lowtide.service.usage import UsageService
from lowtide.store.sql_store import SqlStore
from lowtide.system import SystemClock, new_id

log = structlog.get_logger(__name__)

Role = Literal["all", "api", "worker"]

CACHE_DIR = Path("~/.cache/lowtide").expanduser()
"""Where the demo model is written once for all data directories."""


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model to serve from this process's own engine. None stands for a good choice.

    `spec` is `demo`, a path to a GGUF file, or a hub id. `aliases` are further names that requests
    may call it by.
    """

    spec: str
    slots: int | None = None
    threads: int | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Application:
    """A running Lowtide. `asgi` is None in a process that has no door (`--role worker`)."""

    settings: Settings
    asgi: FastAPI | None
    models: tuple[str, ...]
    store: Store
    blobs: Blobs


@asynccontextmanager
async def open_application(
    settings: Settings,
    *,
    role: Role = "all",
    embedded: EmbeddedModel | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Application]:
    """Start everything; leaving the context drains (within `limits.DRAIN_S`) and closes.

    `on_progress` hears what start-up is busy with, in words for a person. Raises ConfigError,
    DataDirError, StoreError, BlobError, ModelSourceError, EngineStartError.
    """
    async with AsyncExitStack() as stack:
        data_dir = stack.enter_context(locked_data_dir(settings.server.data_dir))
        clock = SystemClock()
        store = await _open_store(settings, data_dir, stack)
        blobs = open_blobs(settings.server.blob_url, data_dir / "blobs")
        await blobs.probe()
        replicas, entries = list(settings.replica), []
        if embedded is not None:
            replica, entry = await _start_embedded(embedded, data_dir, stack, on_progress)
            replicas.append(replica)
            entries.append(entry)
        catalogue = _catalogue(settings, replicas, entries)
        upstreams = await _upstreams(settings, replicas, catalogue, stack)
        worker_id = _worker_id(settings)
        allowance = LimitService(store.tenants, store.ledger, clock, settings.limits)
        loops = _Moving(settings, store, blobs, clock, catalogue, upstreams, worker_id, allowance)
        if _is_single_machine(settings):
            await store.work.release_worker(worker_id)  # the lock says: that process is gone
        access = Access(store.tenants, clock)
        stack.push_async_callback(access.flush)
        services = Services(
            settings=settings,
            files=FileService(store.files, blobs, clock, new_id, allowance),
            batches=BatchService(
                store,
                catalogue,
                clock,
                new_id,
                settings,
                allowance,
                loops.wake,
                loops.replica_status,
            ),
            models=ModelService(catalogue),
            results=ResultReader(store, blobs, clock),
            uploads=UploadSigner(_upload_secret(settings, data_dir)),
            estimates=EstimateService(
                blobs, catalogue, allowance, line_bytes_max=settings.limits.line_bytes
            ),
            access=access,
            tenants=TenantService(store.tenants, access, clock, new_id),
            allowance=allowance,
            usage=UsageService(store.ledger, clock),
            live=_live(replicas, upstreams, catalogue, clock, allowance, stack),
        )
        if role != "api":
            await stack.enter_async_context(loops.running())
        yield Application(
            settings=settings,
            asgi=create_app(services) if role != "worker" else None,
            models=tuple(catalogue.entries),
            store=store,
            blobs=blobs,
        )


class _Moving:
    """The loops of a process, wired to each other."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        blobs: Blobs,
        clock: SystemClock,
        catalogue: Catalogue,
        upstreams: Sequence[Upstream],
        worker_id: str,
        allowance: LimitService,
    ) -> None:
        ttl_s = settings.dispatch.lease_ttl_s
        self._clock = clock
        self._upstreams = upstreams
        self._calibrations = Calibrations(store.calibrations)
        self._committer = Committer(
            worker_id,
            store.work,
            blobs,
            new_id,
            beat_s=settings.dispatch.beat_s,
            lease_ttl_s=ttl_s,
            on_settled=lambda: self.wake("assemble"),
            prices=lambda: catalogue.prices,
        )
        self._dispatcher = Dispatcher(
            worker_id,
            store.work,
            blobs,
            clock,
            random.random,
            upstreams,
            self._committer,
            attempts_max=settings.dispatch.attempts_max,
            lease_ttl_s=ttl_s,
            on_answer=self._calibrations.finished,
            in_flight_max=settings.limits.requests_in_flight,
        )
        parts: list[Loop] = [
            ValidateLoop(
                worker_id,
                store.lifecycle,
                blobs,
                clock,
                catalogue,
                settings.limits,
                self.wake,
                token_models=self._calibrations.models,
                allowance=allowance,
                lease_ttl_s=ttl_s,
            ),
            self._dispatcher,
            self._committer,
            self._calibrations,
            AssembleLoop(
                worker_id, store.lifecycle, store.results, blobs, clock, lease_ttl_s=ttl_s
            ),
            ExpireLoop(store.lifecycle, store.work, self.wake),
            SweepLoop(store.results, blobs),
            BudgetLoop(store.ledger, self.wake),
        ]
        self._loops = Loops(parts, clock)
        self._committer.holdings = self._dispatcher
        self._committer.wake = lambda: self._loops.wake("commit")
        self._dispatcher.wake = lambda: self._loops.wake("dispatch")

    def wake(self, name: str) -> None:
        """Nudge a loop. New work and cancelled work both reach the dispatcher through a beat."""
        if name == "dispatch":
            self._dispatcher.announce()
            self._loops.wake("commit")
        else:
            self._loops.wake(name)

    def replica_status(self) -> dict[str, str | None]:
        """Models that some replica serves -> None, or why none of theirs takes calls now."""
        status: dict[str, str | None] = {}
        for upstream in self._upstreams:
            replica = upstream.replica
            closed = replica.circuit.state == "closed"
            why = None if closed else f"{replica.url}: {replica.circuit.opened_because}"
            for model in replica.models:
                status[model] = None if status.get(model, "") is None else why
        if self._committer.trouble is not None:
            return dict.fromkeys(status, f"results cannot be stored: {self._committer.trouble}")
        return status

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run until left; then stop claiming, finish or give back, and commit what finished."""
        await self._calibrations.load()  # before a batch is validated
        async with self._loops:
            try:
                yield
            finally:
                await asyncio.shield(self._dispatcher.drain(limits.DRAIN_S))
        await self._committer.finish(self._clock.now())
        await self._calibrations.tick(self._clock.now())


def _upload_secret(settings: Settings, data_dir: Path) -> bytes:
    """What signs upload addresses: the configured secret of many machines, or this folder's own."""
    configured = settings.server.upload_secret
    return load_secret(data_dir) if configured is None else configured.encode()


async def _open_store(settings: Settings, data_dir: Path, stack: AsyncExitStack) -> Store:
    url = settings.server.database_url
    if url != "sqlite":
        raise ConfigError(f"server.database_url = {url!r}: this version knows 'sqlite' only")
    store = SqlStore.sqlite(data_dir / "lowtide.db")
    await store.open()
    stack.push_async_callback(store.aclose)
    return store


async def _start_embedded(
    embedded: EmbeddedModel,
    data_dir: Path,
    stack: AsyncExitStack,
    on_progress: Callable[[str], None],
) -> tuple[ReplicaSettings, ModelEntry]:
    """The embedded engine as a replica like any other, and its catalogue entry."""
    on_progress(f"getting the model {embedded.spec}")
    model = await asyncio.to_thread(resolve_model, embedded.spec, CACHE_DIR)
    on_progress(f"loading {model.path.name}")
    slots = embedded.slots or limits.EMBEDDED_SLOTS
    engine = EmbeddedEngine(
        model.path,
        model_id=model.model_id,
        log_path=data_dir / "logs" / "engine.log",
        slots=slots,
        threads=embedded.threads,
        context=model.context_tokens,
    )
    url = await engine.start()
    stack.push_async_callback(engine.aclose)
    replica = ReplicaSettings(url=url, models=(model.model_id,), window=slots, engine="llamacpp")
    return replica, ModelEntry(id=model.model_id, aliases=embedded.aliases)


def _catalogue(
    settings: Settings, replicas: Sequence[ReplicaSettings], entries: Sequence[ModelEntry]
) -> Catalogue:
    """The configured models, the embedded one, and whatever else the replicas serve."""
    known = [
        *entries,
        *(ModelEntry(**msgspec.structs.asdict(model)) for model in settings.model),
    ]
    names = {name: entry.id for entry in known for name in (entry.id, *entry.aliases)}
    served = dict.fromkeys(name for replica in replicas for name in replica.models)
    known += [ModelEntry(id=name) for name in served if name not in names]
    if settings.catalogue.unserved == "wait":
        return Catalogue(known)
    return Catalogue(known, served={names.get(name, name) for name in served})


async def _upstreams(
    settings: Settings,
    replicas: Sequence[ReplicaSettings],
    catalogue: Catalogue,
    stack: AsyncExitStack,
) -> list[Upstream]:
    upstreams: list[Upstream] = []
    for replica in replicas:
        engine = _engine(replica, replica.window + limits.PROBE_CONNECTIONS, stack)
        models = frozenset(catalogue.names[name] for name in replica.models)
        upstreams.append(
            Upstream(
                replica=Replica(engine.url, models, replica.window),
                engine=engine,
                engine_names={model: catalogue.engine_name(model) for model in models},
                drop_fields=frozenset(replica.drop_fields),
                timeout_s=replica.attempt_timeout_s or settings.dispatch.attempt_timeout_s,
            )
        )
    return upstreams


def _engine(replica: ReplicaSettings, connections_max: int, stack: AsyncExitStack) -> HttpEngine:
    try:
        engine = HttpEngine(
            replica.url,
            headers=replica.headers,
            api_key=replica.api_key,
            connections_max=connections_max,
            verify=replica.verify_tls,
        )
    except ValueError as error:
        raise ConfigError(f"[[replica]] {replica.url}: {error}") from None
    stack.push_async_callback(engine.aclose)
    return engine


def _live(
    replicas: Sequence[ReplicaSettings],
    upstreams: Sequence[Upstream],
    catalogue: Catalogue,
    clock: SystemClock,
    allowance: LimitService,
    stack: AsyncExitStack,
) -> LiveService:
    """The interactive door over the same replicas, by connections of its own."""
    shared = [
        LiveReplica(
            upstream.replica,
            _engine(replica, _live_connections(replica), stack),
            upstream.engine_names,
            upstream.drop_fields,
            upstream.timeout_s,
        )
        for replica, upstream in zip(replicas, upstreams, strict=True)
    ]
    return LiveService(catalogue, shared, clock, allowance)


def _live_connections(replica: ReplicaSettings) -> int:
    if replica.engine == "llamacpp":
        return limits.LIVE_CONNECTIONS_LLAMACPP
    return limits.LIVE_CONNECTIONS_MAX


def _is_single_machine(settings: Settings) -> bool:
    return settings.server.database_url == "sqlite"


def _worker_id(settings: Settings) -> str:
    """One name per data directory on one machine; a fresh one per process among many."""
    return "local" if _is_single_machine(settings) else new_id(f"{socket.gethostname()}-")
