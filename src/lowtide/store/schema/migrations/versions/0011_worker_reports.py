"""What each worker last said of itself and its replicas.

Only an addition: code of 0010 beside this one writes no report, and reads none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "worker_reports",
        sa.Column("worker_id", WORD, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("report", sa.Text, nullable=False),
    )
