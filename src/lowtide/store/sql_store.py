"""The store over one SQL database: the protocols of the ports, side by side.

Made by wiring, once a process. Invariant: `open` has returned before any other method is called.
"""

import asyncio
from pathlib import Path

from sqlalchemy import URL

from lowtide.ports.accounts import LedgerStore, TenantStore
from lowtide.ports.calibration import CalibrationStore
from lowtide.ports.capacity import CapacityStore
from lowtide.ports.clock import Clock
from lowtide.ports.files import FileStore
from lowtide.ports.flex import FlexStore
from lowtide.ports.history import HistoryStore
from lowtide.ports.idempotency import IdempotencyStore
from lowtide.ports.integrity import IntegrityStore
from lowtide.ports.limit_use import LimitUseStore
from lowtide.ports.live_rates import LiveRateStore
from lowtide.ports.ownership import OwnershipStore
from lowtide.ports.retries import RetryStore
from lowtide.ports.steering import SteeringStore
from lowtide.ports.store import (
    BatchStore,
    LifecycleStore,
    ResultStore,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from lowtide.ports.token_queue import TokenQueueStore
from lowtide.ports.turns import Turns
from lowtide.ports.uploads import UploadStore
from lowtide.ports.wakeups import Wakeups
from lowtide.ports.webhooks import OutboxStore, WebhookStore
from lowtide.ports.work import WorkStore
from lowtide.ports.worker_reports import WorkerReportStore
from lowtide.store.batches import SqlBatches
from lowtide.store.calibrations import SqlCalibrations
from lowtide.store.capacity import SqlCapacity
from lowtide.store.connection.database import Database, mapped_errors
from lowtide.store.connection.dialect import make_sqlite_file
from lowtide.store.connection.notify import SqlWakeups
from lowtide.store.files import SqlFiles
from lowtide.store.flex import SqlFlex
from lowtide.store.history import SqlHistory
from lowtide.store.idempotency import SqlIdempotency
from lowtide.store.integrity import SqlIntegrity
from lowtide.store.ledger import SqlLedger
from lowtide.store.lifecycle import SqlLifecycle
from lowtide.store.limit_use import SqlLimitUse
from lowtide.store.live_rates import SqlLiveRates
from lowtide.store.outbox import SqlOutbox
from lowtide.store.ownership import SqlOwnership
from lowtide.store.results import SqlResults
from lowtide.store.retries import SqlRetries
from lowtide.store.schema.fitness import check_fitness, check_writable
from lowtide.store.schema.migrate import bring_to_head
from lowtide.store.schema.server_info import DatabaseFacts, facts_of
from lowtide.store.steering import SqlSteering
from lowtide.store.tenants import SqlTenants
from lowtide.store.token_queue import SqlTokenQueue
from lowtide.store.uploads import SqlUploads
from lowtide.store.webhooks import SqlWebhooks
from lowtide.store.work import SqlWork
from lowtide.store.worker_reports import SqlWorkerReports


class SqlStore:
    """All of the state. `url` is `postgresql://...` as libpq has it, or SQLAlchemy's for SQLite."""

    def __init__(self, url: str, writing: Turns | None = None) -> None:
        """`writing`: who writes next. Raises ModuleNotFoundError when the driver for PostgreSQL is
        not installed.
        """
        self._db = Database(url, writing)
        self._files = SqlFiles(self._db)
        self._batches = SqlBatches(self._db)
        self._lifecycle = SqlLifecycle(self._db)
        self._work = SqlWork(self._db)
        self._results = SqlResults(self._db)
        self._retries = SqlRetries(self._db)
        self._steering = SqlSteering(self._db)
        self._tenants = SqlTenants(self._db)
        self._token_queue = SqlTokenQueue(self._db)
        self._ledger = SqlLedger(self._db)
        self._calibrations = SqlCalibrations(self._db)
        self._capacity = SqlCapacity(self._db)
        self._ownership = SqlOwnership(self._db)
        self._care = SqlIntegrity(self._db)
        self._uploads = SqlUploads(self._db)
        self._flex = SqlFlex(self._db)
        self._wakeups = SqlWakeups(self._db)
        self._worker_reports = SqlWorkerReports(self._db)
        self._webhooks = SqlWebhooks(self._db)
        self._outbox = SqlOutbox(self._db)
        self._idempotency = SqlIdempotency(self._db)
        self._limit_use = SqlLimitUse(self._db)
        self._history = SqlHistory(self._db)
        self._live_rates = SqlLiveRates(self._db)

    @classmethod
    def sqlite(cls, path: Path, writing: Turns | None = None) -> "SqlStore":
        """The store in one SQLite file; `open` makes it, and its folder, when it is not there."""
        url = URL.create("sqlite+aiosqlite", database=str(path.absolute()))
        return cls(url.render_as_string(hide_password=False), writing)

    @property
    def files(self) -> FileStore:
        return self._files

    @property
    def batches(self) -> BatchStore:
        return self._batches

    @property
    def lifecycle(self) -> LifecycleStore:
        return self._lifecycle

    @property
    def work(self) -> WorkStore:
        return self._work

    @property
    def results(self) -> ResultStore:
        return self._results

    @property
    def retries(self) -> RetryStore:
        return self._retries

    @property
    def steering(self) -> SteeringStore:
        return self._steering

    @property
    def token_queue(self) -> TokenQueueStore:
        return self._token_queue

    @property
    def tenants(self) -> TenantStore:
        return self._tenants

    @property
    def ledger(self) -> LedgerStore:
        return self._ledger

    @property
    def calibrations(self) -> CalibrationStore:
        return self._calibrations

    @property
    def ownership(self) -> OwnershipStore:
        return self._ownership

    @property
    def care(self) -> IntegrityStore:
        return self._care

    @property
    def uploads(self) -> UploadStore:
        return self._uploads

    @property
    def flex(self) -> FlexStore:
        return self._flex

    @property
    def capacity(self) -> CapacityStore:
        return self._capacity

    @property
    def wakeups(self) -> Wakeups:
        return self._wakeups

    @property
    def worker_reports(self) -> WorkerReportStore:
        return self._worker_reports

    @property
    def webhooks(self) -> WebhookStore:
        return self._webhooks

    @property
    def outbox(self) -> OutboxStore:
        return self._outbox

    @property
    def limit_use(self) -> LimitUseStore:
        return self._limit_use

    @property
    def idempotency(self) -> IdempotencyStore:
        return self._idempotency

    @property
    def history(self) -> HistoryStore:
        return self._history

    @property
    def live_rates(self) -> LiveRateStore:
        return self._live_rates

    async def open(self) -> None:
        """Connects and brings the schema to head. Raises StoreError with what to do."""
        file = self._db.file
        try:
            if file is not None:
                with mapped_errors():
                    await asyncio.to_thread(make_sqlite_file, file)
            await check_fitness(self._db)
            await bring_to_head(self._db)
        except StoreReadOnly as error:
            await self.aclose()
            raise StoreError(f"cannot open the database {self._db.name}: {error}") from error
        except StoreUnavailable as error:
            await self.aclose()
            raise StoreError(
                f"cannot open the database {self._db.name}: {error}. Check that it is there, that"
                " this process may write to it, and that nothing else keeps it locked."
            ) from error

    async def check_fit(self) -> None:
        """Whether work could be done here; it need not be open. Raises StoreError."""
        await check_fitness(self._db)

    async def check_writable(self) -> None:
        """Raises StoreReadOnly where a write would be refused, StoreUnavailable as usual."""
        await check_writable(self._db)

    async def facts(self, clock: Clock) -> DatabaseFacts:
        """What the database says of itself; it need not be open. Raises StoreError."""
        return await facts_of(self._db, clock)

    async def aclose(self) -> None:
        await self._db.aclose()
