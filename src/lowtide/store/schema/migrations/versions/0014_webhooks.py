"""Webhooks: endpoints, secrets, what batches asked for, and the outbox of their events."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("project_id", WORD, nullable=False),
        sa.Column("organization_id", WORD, nullable=False),
        sa.Column("url", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("disabled_at", sa.BigInteger),
        sa.Column("disabled_reason", WORD),
        sa.Column("last_success_at", sa.BigInteger),
        sa.Column("failing_since", sa.BigInteger),
    )
    op.create_index(
        "webhook_endpoints_by_project", "webhook_endpoints", ["project_id", "created_at"]
    )
    op.create_table(
        "webhook_secrets",
        sa.Column("owner_id", WORD, primary_key=True),
        sa.Column("secret", WORD, primary_key=True),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.BigInteger),
    )
    op.create_table(
        "batch_webhooks",
        sa.Column("batch_id", WORD, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("endpoint_id", WORD, nullable=False),
        sa.Column("url", WORD),
    )
    _make_deliveries()


def _make_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("event_id", WORD, primary_key=True),
        sa.Column("endpoint_id", WORD, primary_key=True),
        sa.Column("organization_id", WORD, nullable=False),
        sa.Column("project_id", WORD, nullable=False),
        sa.Column("type", WORD, nullable=False),
        sa.Column("batch_id", WORD, nullable=False),
        sa.Column("url", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger),
        sa.Column("attempted_at", sa.BigInteger),
        sa.Column("status_code", sa.Integer),
        sa.Column("error", WORD),
        sa.Column("worker_id", WORD),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger),
    )
    pending = sa.text("state = 'pending'")
    op.create_index(
        "webhook_deliveries_due",
        "webhook_deliveries",
        ["organization_id", "next_at", "lease_expires_at"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.create_index(
        "webhook_deliveries_listed",
        "webhook_deliveries",
        ["project_id", "endpoint_id", "created_at", "event_id"],
    )
    op.create_index("webhook_deliveries_age", "webhook_deliveries", ["created_at"])
