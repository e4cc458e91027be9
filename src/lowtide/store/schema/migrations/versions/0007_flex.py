"""Single calls at the price of a batch: two columns that mark what lists pass over.

Only additions: code of 0006 beside this one makes batches and files without the mark, and lists
those that have it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    for table in ("files", "batches"):
        op.add_column(table, sa.Column("flex", WORD))
        op.create_index(
            f"{table}_listed",
            table,
            ["project_id", "created_at", "id"],
            sqlite_where=sa.text("flex IS NULL"),
            postgresql_where=sa.text("flex IS NULL"),
        )
    op.create_index(
        "batches_held",
        "batches",
        ["id"],
        sqlite_where=sa.text("flex = 'held' AND ended_at IS NULL"),
        postgresql_where=sa.text("flex = 'held' AND ended_at IS NULL"),
    )
