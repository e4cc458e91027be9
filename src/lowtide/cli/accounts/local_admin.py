"""The administrator's backend at the installation on this machine: its database (admin_backend.py
is the contract).

Works with or without a server running on it: SQLite's write-ahead log lets a second process read
and write beside the first, each waiting its turn. Invariants: nothing is made by looking; a schema
is only ever changed while no server has the data directory.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec
from msgspec import UNSET

from lowtide import limits
from lowtide.api.accounts.admin_objects import (
    key_object,
    new_key_object,
    organization_object,
    project_object,
)
from lowtide.api.accounts.usage_object import usage_object
from lowtide.api.replicas.engine_objects import engine_list
from lowtide.cli.accounts.admin_backend import Bounds, Cap, UsageQuestion
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.server.event_loop import new_event_loop
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.config import Settings
from lowtide.core.accounts.money import dollars
from lowtide.core.accounts.tenancy import OrganizationLimits
from lowtide.core.reporting.shown_url import shown_url
from lowtide.data_dir import locked_data_dir
from lowtide.ports.worker_reports import WorkerReportStore
from lowtide.service.accounts.authentication import Authenticator
from lowtide.service.accounts.tenants import TenantService
from lowtide.service.accounts.usage import UsageService
from lowtide.store.schema.compatibility import FIRST
from lowtide.store.schema.tables import HEAD
from lowtide.store.sql_store import SqlStore
from lowtide.system import SystemClock, new_id
from lowtide.wiring.database import is_single_machine, store_of

_DATABASE: Final = "lowtide.db"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AdminServices:
    """What the backend calls, over one open store."""

    tenants: TenantService
    usage: UsageService
    reports: WorkerReportStore


class LocalAdmin:
    """A context manager; entering opens the database. Raises CommandError, StoreError."""

    change_delay_s = limits.KEY_CACHE_S

    def __init__(self, settings: Settings, *, may_create: bool) -> None:
        self._settings = settings
        self._may_create = may_create
        self._stack = AsyncExitStack()
        self._runner = asyncio.Runner(loop_factory=new_event_loop)

    def __enter__(self) -> Self:
        try:
            opening = open_admin_services(self._settings, may_create=self._may_create)
            self._verbs = self._run(self._stack.enter_async_context(opening))
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._stack.aclose())
        finally:
            self._runner.close()

    @property
    def place(self) -> str:
        server = self._settings.server
        if is_single_machine(self._settings):
            return f"the installation {server.data_dir.absolute()}"
        return f"the installation {shown_url(server.database_url)}"

    def is_admin(self) -> bool:
        return True  # who can write the database needs no key

    def organizations(self) -> list[JsonObject]:
        return [
            _shown(organization_object(each)) for each in self._run(self._tenants.organizations())
        ]

    def create_organization(
        self, name: str, bounds: Bounds, spend_cap: Decimal | None
    ) -> JsonObject:
        made = self._tenants.create_organization(
            name, bounds=OrganizationLimits(**bounds), spend_cap=spend_cap
        )
        return _shown(organization_object(self._run(made)))

    def change_organization(
        self, organization_id: str, bounds: Bounds, spend_cap: Cap
    ) -> JsonObject:
        before = self._run(self._tenants.organization(organization_id))
        if spend_cap is UNSET:
            cap = before.spend_cap_pico
            spend_cap = None if cap is None else dollars(cap)
        changed = self._tenants.change_organization(
            organization_id,
            bounds=msgspec.structs.replace(before.limits, **bounds),
            spend_cap=spend_cap,
        )
        return _shown(organization_object(self._run(changed)))

    def engines(self) -> JsonObject:
        reports = self._run(self._verbs.reports.all())
        return _shown(engine_list(reports, SystemClock().now()))

    def projects(self, organization_id: str | None = None) -> list[JsonObject]:
        return [
            _shown(project_object(each))
            for each in self._run(self._tenants.projects(organization_id))
        ]

    def create_project(self, organization_id: str, name: str) -> JsonObject:
        made = self._tenants.create_project(organization_id, name)
        return _shown(project_object(self._run(made)))

    def keys(self, project_id: str | None = None) -> list[JsonObject]:
        return [_shown(key_object(each)) for each in self._run(self._tenants.keys(project_id))]

    def create_key(
        self, project_id: str, name: str, scopes: Sequence[str], expires_at: datetime | None
    ) -> JsonObject:
        made = self._run(
            self._tenants.create_key(project_id, name, scopes=scopes, expires_at=expires_at)
        )
        return _shown(new_key_object(made.key, made.credential))

    def revoke_key(self, key_id: str) -> JsonObject:
        return _shown(key_object(self._run(self._tenants.revoke_key(key_id))))

    def usage(self, asked: UsageQuestion) -> JsonObject:
        report = self._verbs.usage.report(
            since=asked.since,
            until=asked.until,
            group_by=asked.group_by,
            organization_id=asked.organization_id,
            project_id=asked.project_id,
        )
        return _shown(usage_object(self._run(report)))

    @property
    def _tenants(self) -> TenantService:
        return self._verbs.tenants

    def _run(self, asked: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(asked)


@asynccontextmanager
async def open_admin_services(
    settings: Settings, *, may_create: bool
) -> AsyncIterator[AdminServices]:
    """The verbs over the installation's database, which is closed at the end."""
    store = store_of(settings)
    if is_single_machine(settings):
        database = settings.server.data_dir / _DATABASE
        if not may_create and not database.exists():
            raise _not_found(f"in {database.parent.absolute()}")
        with _alone_to_upgrade(database):
            await store.open()
    else:
        await _open_shared(store, may_create=may_create)
    try:
        yield services_over(store)
    finally:
        await store.aclose()


def _not_found(where: str) -> CommandError:
    return CommandError(
        f"There is no installation {where}.",
        "Name its settings with --config or its folder with --data-dir, or a server with"
        " --server. `lowtide keys create` and `lowtide serve` make a new one.",
        code="no_installation",
    )


async def _open_shared(store: SqlStore, *, may_create: bool) -> None:
    """A database that servers elsewhere may be using: its schema is left as it is."""
    try:
        schema = (await store.facts(SystemClock())).schema
        if schema is None and not may_create:
            raise _not_found("in the database of server.database_url")
        if schema is not None and FIRST <= schema < HEAD:
            raise CommandError(
                f"The database has schema {schema}, this version has {HEAD}.",
                "Start a server of this version first: it brings the database up to date.",
                code="old_schema",
            )
        await store.open()
    except BaseException:
        await store.aclose()
        raise


def services_over(store: SqlStore) -> AdminServices:
    clock = SystemClock()
    access = Authenticator(store.tenants, clock)
    return AdminServices(
        TenantService(store.tenants, access, clock, new_id),
        UsageService(store.ledger, clock),
        store.worker_reports,
    )


@contextmanager
def _alone_to_upgrade(database: Path) -> Iterator[None]:
    """Holds the data directory while a schema of before is brought up to date.

    Raises DataDirError when a server runs on it: its statements are those of the old schema.
    """
    if _version(database) in (None, HEAD):
        yield
        return
    with locked_data_dir(database.parent):
        yield


def _version(database: Path) -> str | None:
    """The schema's version; None: there is none, or only opening the database can tell."""
    try:
        uri = f"{database.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


def _shown(answer: msgspec.Struct) -> JsonObject:
    """The answer as a client of the server would decode it."""
    shown: JsonObject = msgspec.to_builtins(answer)
    return shown
