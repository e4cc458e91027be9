"""Planned batches that wait for enqueued tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.add_column("batches", sa.Column("queued_at", sa.BigInteger))
    queued = sa.column("queued_at").is_not(None)
    op.create_index(
        "batches_queued",
        "batches",
        ["organization_id"],
        sqlite_where=queued,
        postgresql_where=queued,
    )
