"""When a create was answered, and how many answers came without usable usage.

Only additions: code of 0007 beside this one marks creates as answered without an instant, which
counts as long ago, and adds no answers without usage, as it did not know of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("batches", sa.Column("answered_at", sa.BigInteger))
    for table in ("batches", "batch_models", "ledger"):
        op.add_column(
            table,
            sa.Column("unreported", sa.BigInteger, nullable=False, server_default="0"),
        )
