"""Idempotency keys: what a client's key stands for, for a day."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("organization_id", WORD, primary_key=True),
        sa.Column("key", WORD, primary_key=True),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("digest", WORD, nullable=False),
        sa.Column("made_id", WORD, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
    )
    op.create_index("idempotency_keys_age", "idempotency_keys", ["made_at"])
