"""Workers, whose each replica is, and which code may run on this schema: new tables alone."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
least_code = "0004"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table("schema_compatibility", sa.Column("least_code", WORD, primary_key=True))
    op.create_table(
        "workers",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("ttl_ms", sa.BigInteger, nullable=False),
        sa.Column("wants", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("name", WORD, primary_key=True),
        sa.Column("worker_id", WORD),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("claimed_at", sa.BigInteger),
    )
