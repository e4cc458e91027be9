"""The services of a process, each given the ports and the other services that it needs.

This is the one place where they are built: for the product, for the tests of the HTTP API, and for
the simulator, which differ in `parts` and in the worker beside.
"""

from collections.abc import Set
from pathlib import Path
from typing import Protocol

from lowtide.config import Settings
from lowtide.core.reporting.worker_report import WorkerReport
from lowtide.service.accounts.authentication import Authenticator
from lowtide.service.accounts.limit_report import LimitReport
from lowtide.service.accounts.sessions import Sessions
from lowtide.service.accounts.tenants import TenantService
from lowtide.service.accounts.usage import UsageService
from lowtide.service.batches.batches import BatchService
from lowtide.service.batches.estimates import EstimateService
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.batches.joined_results import JoinedResults
from lowtide.service.batches.progress import ProgressService
from lowtide.service.batches.result_pages import ResultPages
from lowtide.service.batches.results import ResultReader
from lowtide.service.batches.retries import RetryService
from lowtide.service.batches.steering import SteeringService
from lowtide.service.files.files import FileService
from lowtide.service.files.signing import UploadSigner, load_secret
from lowtide.service.files.upload_keys import UploadKeys
from lowtide.service.files.uploads import UploadService
from lowtide.service.files.uploads_completion import UploadCompleter
from lowtide.service.history.history import HistoryService
from lowtide.service.live.background import BackgroundService
from lowtide.service.live.flex import FlexService
from lowtide.service.live.flex_queue import FlexQueue
from lowtide.service.live.live import LiveService
from lowtide.service.models import ModelService
from lowtide.service.readiness import Readiness
from lowtide.service.scale import ScaleService
from lowtide.service.services import Services
from lowtide.service.standings import Standings
from lowtide.service.webhooks.webhooks import WebhookService
from lowtide.wiring.parts import Parts


class LocalWorker(Protocol):
    """What services need of the loops of their own process; `wiring.worker.Worker` is one."""

    @property
    def id(self) -> str: ...

    def wake(self, name: str) -> None:
        """Wakes a loop; the wake-up may be lost."""

    def report(self) -> WorkerReport | None:
        """The worker's report of now; None while it does not run."""

    def served_models(self) -> Set[str] | None:
        """The models of the replicas that are listed here; None where that is not known here."""


def standings_of(parts: Parts, worker: LocalWorker) -> Standings:
    """The standings of a process. How old a report is shows from the second reading on, so one
    reading is taken before the first call.
    """
    reports, catalogue = parts.store.worker_reports, parts.catalogue
    return Standings(reports, parts.clock, worker.report, lambda: catalogue.hours)


def build_services(
    parts: Parts, worker: LocalWorker, live: LiveService, standings: Standings, secret: bytes
) -> Services:
    """`secret` signs upload addresses and sessions of the console. Before the process ends,
    `access` is to be flushed and `completions` closed.
    """
    store, blobs, clock, new_id = parts.store, parts.blobs, parts.clock, parts.new_id
    access, files = Authenticator(store.tenants, clock), _files(parts)
    forecasts = Forecasts(parts.backlog, blobs, parts.catalogue, parts.planner)
    scale = _scale(parts, standings)
    queue = _flex_queue(parts, worker, files, forecasts)
    webhooks = WebhookService(store.webhooks, store.outbox, parts.sender, clock, new_id)
    return Services(
        settings=parts.settings,
        files=files,
        parts=UploadService(store.uploads, files, blobs, clock, new_id),
        completions=UploadCompleter(store.uploads, store.files, blobs, clock, new_id),
        batches=BatchService(
            store,
            parts.catalogue,
            clock,
            new_id,
            parts.quotas,
            worker.wake,
            forecasts,
            webhooks,
        ),
        progress=ProgressService(
            store, clock, parts.quotas, standings.now, forecasts, scale.asleep
        ),
        models=ModelService(parts.catalogue),
        results=ResultReader(store, blobs, clock),
        joined=JoinedResults(store, blobs),
        steering=SteeringService(store.steering, clock, worker.wake),
        retries=RetryService(store, parts.catalogue, clock, new_id, parts.quotas, worker.wake),
        result_pages=ResultPages(blobs),
        uploads=UploadSigner(secret),
        estimates=EstimateService(blobs, parts.planner, parts.quotas),
        access=access,
        tenants=TenantService(store.tenants, access, clock, new_id),
        allowance=parts.quotas,
        usage=UsageService(store.ledger, clock),
        live=live,
        flex=FlexService(queue, store, blobs, lambda: worker.wake("flex-results")),
        background=BackgroundService(queue, store, blobs, clock),
        readiness=Readiness(store.files, store.check_writable, blobs, clock),
        sessions=Sessions(secret, access, clock),
        standings=standings,
        scale=scale,
        webhooks=webhooks,
        limits=_limit_report(parts, live),
        forecasts=forecasts,
        history=HistoryService(store.history, store.batches, clock),
    )


def _scale(parts: Parts, standings: Standings) -> ScaleService:
    wanted = parts.settings.scale
    return ScaleService(
        parts.backlog,
        standings,
        parts.catalogue,
        parts.clock,
        replicas_max=wanted.replicas_max,
        cold_start_s=wanted.cold_start_s,
        hold_s=wanted.hold_s,
    )


def _flex_queue(
    parts: Parts, worker: LocalWorker, files: FileService, forecasts: Forecasts
) -> FlexQueue:
    return FlexQueue(
        parts.store,
        parts.blobs,
        parts.catalogue,
        parts.planner,
        parts.clock,
        parts.new_id,
        files,
        parts.quotas,
        worker.wake,
        owner=worker.id,
        served_models=worker.served_models,
        prospects=forecasts,
    )


def _files(parts: Parts) -> FileService:
    store, clock = parts.store, parts.clock
    keys = UploadKeys(store.idempotency, clock)
    return FileService(store.files, parts.blobs, clock, parts.new_id, parts.quotas, keys)


def _limit_report(parts: Parts, live: LiveService) -> LimitReport:
    store = parts.store
    return LimitReport(
        parts.quotas, store.tenants, store.limit_use, parts.clock, live.rates, parts.catalogue
    )


def upload_secret(settings: Settings, data_dir: Path) -> bytes:
    """What signs upload addresses: the configured secret of many machines, or this folder's own."""
    configured = settings.server.upload_secret
    return load_secret(data_dir) if configured is None else configured.encode()
