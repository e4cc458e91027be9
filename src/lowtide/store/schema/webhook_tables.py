"""The tables of webhooks: endpoints, secrets, what batches asked for, and the outbox.

They belong to the schema of tables.py and share its rules. Invariant: a row of `webhook_deliveries`
is written in the transaction in which its batch comes to its end, so an event is there if and only
if the end is.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, literal_column

from lowtide.core.webhooks.endpoint import EventType
from lowtide.store.schema.columns import WORD, Json, at, only, text
from lowtide.store.schema.tables import batches, metadata

PENDING_DELIVERY: Final = literal_column("'pending'", String)
"""Written out, as the states in tables.py are."""


webhook_endpoints: Final = Table(
    "webhook_endpoints",
    metadata,
    Column("id", WORD, primary_key=True),
    text("project_id"),
    text("organization_id"),
    text("url"),
    text("name"),
    Column("events", Json(tuple[EventType, ...]), nullable=False),
    at("created_at", nullable=False),
    at("updated_at", nullable=False),
    at("disabled_at"),
    text("disabled_reason", nullable=True),
    at("last_success_at"),
    at("failing_since"),
)
Index(
    "webhook_endpoints_by_project", webhook_endpoints.c.project_id, webhook_endpoints.c.created_at
)

webhook_secrets: Final = Table(
    "webhook_secrets",
    metadata,
    Column("owner_id", WORD, primary_key=True),  # an endpoint's id, or a project's
    Column("secret", WORD, primary_key=True),  # as it is: what signs has to be read
    at("made_at", nullable=False),
    at("ends_at"),  # of one that was rotated: until then it signs as well
)

batch_webhooks: Final = Table(
    "batch_webhooks",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    text("endpoint_id"),  # an endpoint's id, or PROJECT for an address of its own
    text("url", nullable=True),  # that address
)

webhook_deliveries: Final = Table(
    "webhook_deliveries",
    metadata,
    Column("event_id", WORD, primary_key=True),
    Column("endpoint_id", WORD, primary_key=True),
    text("organization_id"),
    text("project_id"),
    text("type"),
    text("batch_id"),
    text("url"),  # of an endpoint: where the last attempt went
    at("created_at", nullable=False),
    text("state"),
    Column("attempts", Integer, nullable=False),
    at("next_at"),
    at("attempted_at"),
    Column("status_code", Integer),
    text("error", nullable=True),
    text("worker_id", nullable=True),
    Column("token", BigInteger, nullable=False),
    at("lease_expires_at"),
)
Index(
    "webhook_deliveries_due",  # grouped by organization from the index alone
    webhook_deliveries.c.organization_id,
    webhook_deliveries.c.next_at,
    webhook_deliveries.c.lease_expires_at,
    **only(webhook_deliveries.c.state == PENDING_DELIVERY),
)
Index(
    "webhook_deliveries_listed",
    webhook_deliveries.c.project_id,
    webhook_deliveries.c.endpoint_id,
    webhook_deliveries.c.created_at,
    webhook_deliveries.c.event_id,
)
Index("webhook_deliveries_age", webhook_deliveries.c.created_at)
