"""What scheduling remembers: whose turn it is, which batches are urgent, what pools get done.

Only additions: code of 0004 beside this one plans chunks without a cost, which count as their
input tokens, and claims in the order of the index that it knows.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("organizations", sa.Column("weight", sa.BigInteger))
    op.add_column("batch_models", sa.Column("planned_cost", sa.Float))
    op.add_column("chunks", sa.Column("cost", sa.Float))
    op.create_table(
        "virtual_times",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("organization_id", WORD, primary_key=True),
        sa.Column("virtual_time", sa.Float, nullable=False),
    )
    op.create_table(
        "urgent_batches",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("batch_id", WORD, primary_key=True),
        sa.Column("place", sa.Integer, nullable=False),
    )
    op.create_table(
        "paces",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("work", sa.Float, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("requests", sa.Float, nullable=False),
        sa.Column("output_tokens", sa.Float, nullable=False),
        sa.Column("hour_at", sa.BigInteger, nullable=False),
        sa.Column("hour_work", sa.Float, nullable=False),
        sa.Column("hour_seconds", sa.Float, nullable=False),
    )
    op.create_table(
        "forecast_cells",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("cell", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("p20", sa.Float, nullable=False),
        sa.Column("p50", sa.Float, nullable=False),
        sa.Column("weeks", sa.Integer, nullable=False),
    )
