"""What the loops and the services of one process stand on: adapters, and what is made of them once.

`open_application` makes it of the real ones, the tests and the simulator of their own; worker.py
and services.py build everything else from it. Invariant: one catalogue, one set of quotas, one
planner and one reading of the backlog for all parts of a process.
"""

from dataclasses import dataclass

from lowtide.config import Settings
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.validation.planner import Planner
from lowtide.loops.scheduling.calibrate import Calibrations
from lowtide.outbound.sender import HttpSender
from lowtide.ports.blobs import Blobs
from lowtide.ports.clock import Clock, NewId
from lowtide.ports.store import Store
from lowtide.ports.webhooks import WebhookSender
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.scheduling.backlog_reading import BacklogReadings
from lowtide.system import new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The adapters and shared values of one process."""

    settings: Settings
    store: Store
    blobs: Blobs
    clock: Clock
    catalogue: Catalogue
    new_id: NewId
    quotas: Quotas
    calibrations: Calibrations
    planner: Planner
    backlog: BacklogReadings
    sender: WebhookSender


def parts_of(
    settings: Settings,
    store: Store,
    blobs: Blobs,
    clock: Clock,
    catalogue: Catalogue,
    new_id: NewId = new_id,
    sender: WebhookSender | None = None,
) -> Parts:
    """The parts of a process; nothing is read or opened yet. `catalogue` may change at run time.
    `sender` None: the real one."""
    quotas = Quotas(store.tenants, store.ledger, clock, settings.limits)
    calibrations = Calibrations(store.calibrations)
    if sender is None:
        sender = HttpSender(settings.webhooks.networks, settings.webhooks.proxy)
    return Parts(
        settings=settings,
        store=store,
        blobs=blobs,
        clock=clock,
        catalogue=catalogue,
        new_id=new_id,
        quotas=quotas,
        calibrations=calibrations,
        planner=Planner(catalogue, lambda: quotas.defaults, calibrations.models),
        backlog=BacklogReadings(store.capacity, clock),
        sender=sender,
    )
