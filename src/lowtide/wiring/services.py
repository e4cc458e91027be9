"""The verbs of a process, each given the ports and the other verbs that it needs."""

from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from lowtide.config import Settings
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store
from lowtide.service.accounts.authentication import Authenticator
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.accounts.tenants import TenantService
from lowtide.service.accounts.usage import UsageService
from lowtide.service.batches.batches import BatchService
from lowtide.service.batches.estimates import EstimateService
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.batches.results import ResultReader
from lowtide.service.files.files import FileService
from lowtide.service.files.signing import UploadSigner, load_secret
from lowtide.service.files.uploads import UploadService
from lowtide.service.files.uploads_completion import UploadCompleter
from lowtide.service.live.live import LiveService
from lowtide.service.models import ModelService
from lowtide.service.readiness import Readiness
from lowtide.service.services import Services
from lowtide.service.standings import Standings
from lowtide.system import new_id
from lowtide.wiring.flex import flex_services
from lowtide.wiring.worker import Worker

log = structlog.get_logger(__name__)


async def build_services(
    settings: Settings,
    data_dir: Path,
    store: Store,
    blobs: Blobs,
    clock: Clock,
    catalogue: Catalogue,
    worker: Worker,
    allowance: Quotas,
    live: LiveService,
    stack: AsyncExitStack,
) -> Services:
    """Leaving `stack` writes down when keys were last used. Raises StoreError, OSError."""
    access = Authenticator(store.tenants, clock)
    stack.push_async_callback(access.flush)
    if settings.auth.mode == "keys" and not await store.tenants.keys():
        log.warning("keys.none", hint="nobody can call: make a key with `lowtide keys create`")
    files = FileService(store.files, blobs, clock, new_id, allowance)
    flex, background = flex_services(
        settings, store, blobs, clock, catalogue, worker, files, allowance
    )
    completions = UploadCompleter(store.uploads, store.files, blobs, clock, new_id)
    stack.push_async_callback(completions.aclose)
    standings = Standings(store.worker_reports, clock, worker.report, lambda: catalogue.hours)
    await standings.now()  # how old a report is shows from the second look on
    batches = BatchService(
        store,
        catalogue,
        clock,
        new_id,
        allowance,
        worker.wake,
        standings.now,
        Forecasts(
            store.capacity,
            blobs,
            catalogue,
            clock,
            worker.planner,
        ),
    )
    worker.watch_batches(batches.progress)
    return Services(
        settings=settings,
        files=files,
        parts=UploadService(store.uploads, files, blobs, clock, new_id),
        completions=completions,
        batches=batches,
        models=ModelService(catalogue),
        results=ResultReader(store, blobs, clock),
        uploads=UploadSigner(_upload_secret(settings, data_dir)),
        estimates=EstimateService(blobs, worker.planner, allowance),
        access=access,
        tenants=TenantService(store.tenants, access, clock, new_id),
        allowance=allowance,
        usage=UsageService(store.ledger, clock),
        live=live,
        flex=flex,
        background=background,
        readiness=Readiness(store.files, store.check_writable, blobs, clock),
    )


def _upload_secret(settings: Settings, data_dir: Path) -> bytes:
    """What signs upload addresses: the configured secret of many machines, or this folder's own."""
    configured = settings.server.upload_secret
    return load_secret(data_dir) if configured is None else configured.encode()
