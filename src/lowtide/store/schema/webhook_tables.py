"""The tables of webhooks: endpoints, secrets, what batches asked for, and the outbox.

They belong to the schema of tables.py and share its rules. Invariant: a row of `webhook_deliveries`
is written in the transaction in which its batch comes to its end, so an event is there if and only
if the end is.
"""

from typing import Any, Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, literal_column

from lowtide.core.webhooks.endpoint import EventType
from lowtide.store.schema.columns import WORD, Instant, Json
from lowtide.store.schema.tables import batches, metadata

PENDING_DELIVERY: Final = literal_column("'pending'", String)
"""Written out, as the states in tables.py are."""


def _word(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, WORD, nullable=nullable)


def _instant(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, Instant, nullable=nullable)


webhook_endpoints: Final = Table(
    "webhook_endpoints",
    metadata,
    Column("id", WORD, primary_key=True),
    _word("project_id"),
    _word("organization_id"),
    _word("url"),
    _word("name"),
    Column("events", Json(tuple[EventType, ...]), nullable=False),
    _instant("created_at", nullable=False),
    _instant("updated_at", nullable=False),
    _instant("disabled_at"),
    _word("disabled_reason", nullable=True),
    _instant("last_success_at"),
    _instant("failing_since"),
)
Index(
    "webhook_endpoints_by_project", webhook_endpoints.c.project_id, webhook_endpoints.c.created_at
)

webhook_secrets: Final = Table(
    "webhook_secrets",
    metadata,
    Column("owner_id", WORD, primary_key=True),  # an endpoint's id, or a project's
    Column("secret", WORD, primary_key=True),  # as it is: what signs has to be read
    _instant("made_at", nullable=False),
    _instant("ends_at"),  # of one that was rotated: until then it signs as well
)

batch_webhooks: Final = Table(
    "batch_webhooks",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    _word("endpoint_id"),  # an endpoint's id, or PROJECT for an address of its own
    _word("url", nullable=True),  # that address
)

webhook_deliveries: Final = Table(
    "webhook_deliveries",
    metadata,
    Column("event_id", WORD, primary_key=True),
    Column("endpoint_id", WORD, primary_key=True),
    _word("organization_id"),
    _word("project_id"),
    _word("type"),
    _word("batch_id"),
    _word("url"),  # of an endpoint: where the last attempt went
    _instant("created_at", nullable=False),
    _word("state"),
    Column("attempts", Integer, nullable=False),
    _instant("next_at"),
    _instant("attempted_at"),
    Column("status_code", Integer),
    _word("error", nullable=True),
    _word("worker_id", nullable=True),
    Column("token", BigInteger, nullable=False),
    _instant("lease_expires_at"),
)
_pending = webhook_deliveries.c.state == PENDING_DELIVERY
Index(
    "webhook_deliveries_due",  # grouped by organization from the index alone
    webhook_deliveries.c.organization_id,
    webhook_deliveries.c.next_at,
    webhook_deliveries.c.lease_expires_at,
    sqlite_where=_pending,
    postgresql_where=_pending,
)
Index(
    "webhook_deliveries_listed",
    webhook_deliveries.c.project_id,
    webhook_deliveries.c.endpoint_id,
    webhook_deliveries.c.created_at,
    webhook_deliveries.c.event_id,
)
Index("webhook_deliveries_age", webhook_deliveries.c.created_at)
