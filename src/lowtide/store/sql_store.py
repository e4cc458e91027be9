"""The store over one SQL database: the protocols of the ports, side by side.

Made by wiring, once a process. Invariant: `open` has returned before any other method is called.
"""

import asyncio
from pathlib import Path

from sqlalchemy import URL

from lowtide.ports.clock import Clock
from lowtide.ports.store import Store, StoreError, StoreReadOnly, StoreUnavailable
from lowtide.ports.turns import Turns
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


class SqlStore(Store):
    """All of the state. `url` is `postgresql://...` as libpq has it, or SQLAlchemy's for SQLite."""

    def __init__(self, url: str, writing: Turns | None = None) -> None:
        """`writing`: who writes next. Raises ModuleNotFoundError when the driver for PostgreSQL is
        not installed.
        """
        self._db = Database(url, writing)
        self.files = SqlFiles(self._db)
        self.batches = SqlBatches(self._db)
        self.lifecycle = SqlLifecycle(self._db)
        self.work = SqlWork(self._db)
        self.results = SqlResults(self._db)
        self.retries = SqlRetries(self._db)
        self.steering = SqlSteering(self._db)
        self.tenants = SqlTenants(self._db)
        self.token_queue = SqlTokenQueue(self._db)
        self.ledger = SqlLedger(self._db)
        self.calibrations = SqlCalibrations(self._db)
        self.capacity = SqlCapacity(self._db)
        self.ownership = SqlOwnership(self._db)
        self.care = SqlIntegrity(self._db)
        self.uploads = SqlUploads(self._db)
        self.flex = SqlFlex(self._db)
        self.wakeups = SqlWakeups(self._db)
        self.worker_reports = SqlWorkerReports(self._db)
        self.webhooks = SqlWebhooks(self._db)
        self.outbox = SqlOutbox(self._db)
        self.idempotency = SqlIdempotency(self._db)
        self.limit_use = SqlLimitUse(self._db)
        self.history = SqlHistory(self._db)
        self.live_rates = SqlLiveRates(self._db)

    @classmethod
    def sqlite(cls, path: Path, writing: Turns | None = None) -> "SqlStore":
        """The store in one SQLite file; `open` makes it, and its folder, when it is not there."""
        url = URL.create("sqlite+aiosqlite", database=str(path.absolute()))
        return cls(url.render_as_string(hide_password=False), writing)

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
