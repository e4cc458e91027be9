"""History: how fast each batch went, and notes of what happened to it."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "batch_history",
        sa.Column("batch_id", WORD, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("looked_at", sa.BigInteger, nullable=False),
        sa.Column("history", sa.Text, nullable=False),
    )
    op.create_index("batch_history_age", "batch_history", ["looked_at"])
    op.create_table(
        "batch_notes",
        sa.Column("batch_id", WORD, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", WORD, primary_key=True),
        sa.Column("actor", WORD, nullable=False),
        sa.Column("detail", WORD, nullable=False),
    )
    op.create_index("batch_notes_age", "batch_notes", ["at"])
