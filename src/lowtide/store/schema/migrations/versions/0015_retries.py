"""Retries: a tree of batches over one input, sets of its lines, and groups of alike failures."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("batches", sa.Column("retry_of", WORD))
    op.add_column("batches", sa.Column("root_id", WORD))
    op.add_column("batches", sa.Column("model_override", WORD))
    is_retry = sa.text("root_id IS NOT NULL")
    op.create_index(
        "batches_retries",
        "batches",
        ["root_id"],
        sqlite_where=is_retry,
        postgresql_where=is_retry,
    )
    op.create_table(
        "line_sets",
        sa.Column("batch_id", WORD, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("kind", WORD, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "failure_groups",
        sa.Column("batch_id", WORD, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("code", WORD, primary_key=True),
        sa.Column("shape", WORD, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("examples", sa.Text, nullable=False),
    )
