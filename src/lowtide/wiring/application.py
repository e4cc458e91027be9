"""One process of Lowtide: everything it is made of, opened in order and closed in reverse."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lowtide.blobs.url import open_blobs
from lowtide.config import Settings
from lowtide.data_dir import locked_data_dir
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.service.limits import LimitService
from lowtide.service.live import LiveService
from lowtide.service.services import Services
from lowtide.system import SystemClock, new_id
from lowtide.wiring.controls import open_controls
from lowtide.wiring.database import check_server, is_single_machine, store_of
from lowtide.wiring.flex import holding
from lowtide.wiring.replicas import (
    EmbeddedModel,
    catalogue_of,
    open_doors,
    open_upstreams,
    start_embedded,
)
from lowtide.wiring.sharing import shared_replicas
from lowtide.wiring.verbs import open_verbs
from lowtide.wiring.worker import Worker

if TYPE_CHECKING:
    from fastapi import FastAPI

Role = Literal["all", "api", "worker"]


@dataclass(frozen=True, slots=True)
class Application:
    """A running Lowtide. `asgi` is None in a process that has no door (`--role worker`)."""

    settings: Settings
    asgi: "FastAPI | None"
    models: tuple[str, ...]
    store: Store
    blobs: Blobs
    begin_drain: Callable[[], None]
    """Be ready for nothing and claim no more work; call it when asked to stop, so that the drain
    passes while the door closes."""


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
        store = await _open_store(settings, clock, stack)
        blobs = open_blobs(settings.server.blob_url, data_dir / "blobs")
        await blobs.probe()
        replicas, entries = list(settings.replica), []
        if embedded is not None:
            replica, entry = await start_embedded(embedded, data_dir, stack, on_progress)
            replicas.append(replica)
            entries.append(entry)
        catalogue = catalogue_of(settings, replicas, entries)
        upstreams = await open_upstreams(settings, replicas, catalogue, stack)
        doors = open_doors(replicas, upstreams, stack)
        worker_id = _worker_id(settings)
        allowance = LimitService(store.tenants, store.ledger, clock, settings.limits)
        worker = Worker(
            settings,
            store,
            blobs,
            clock,
            catalogue,
            upstreams,
            worker_id,
            allowance,
            shared=shared_replicas(settings, upstreams),
            controlled=open_controls(replicas, upstreams, doors, stack),
        )
        if is_single_machine(settings):
            await _take_over(store, worker_id)
        live = LiveService(catalogue, doors, clock, allowance)
        services = await open_verbs(
            settings, data_dir, store, blobs, clock, catalogue, worker, allowance, live, stack
        )
        asgi = _door(services) if role != "worker" else None
        if role != "worker":
            holds = holding(settings, services.flex, store, clock, worker, alone=role == "api")
            await stack.enter_async_context(holds)
        if role != "api":
            await stack.enter_async_context(worker.running())

        def begin_drain() -> None:
            services.readiness.begin_drain()
            services.flex.begin_drain()
            if role != "api":
                worker.begin_drain()

        yield Application(
            settings=settings,
            asgi=asgi,
            models=tuple(catalogue.entries),
            store=store,
            blobs=blobs,
            begin_drain=begin_drain,
        )


def _door(services: Services) -> "FastAPI":
    # Here, for it is a third of what a process loads, and a worker or a command has no door.
    from lowtide.api.app import create_app

    return create_app(services)


async def _open_store(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Store:
    store = store_of(settings)
    stack.push_async_callback(store.aclose)
    await store.open()
    await check_server(store, clock, settings.dispatch.lease_ttl_s)
    return store


async def _take_over(store: Store, worker_id: str) -> None:
    """What the former process held: the lock says that it is gone."""
    await store.work.release_worker(worker_id)
    await store.uploads.let_all_go()


def _worker_id(settings: Settings) -> str:
    """One name per data directory on one machine; a fresh one per process among many."""
    return "local" if is_single_machine(settings) else new_id(f"{socket.gethostname()}-")
