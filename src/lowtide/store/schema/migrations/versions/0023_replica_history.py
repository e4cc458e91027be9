"""What each replica did and what its live calls met, by bucket of time and process."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "replica_history",
        sa.Column("replica", WORD, primary_key=True),
        sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("writer", WORD, primary_key=True),
        sa.Column("gave_way", sa.Boolean, nullable=False),
        sa.Column("part", sa.Text, nullable=False),
    )
    op.create_index("replica_history_age", "replica_history", ["at"])
