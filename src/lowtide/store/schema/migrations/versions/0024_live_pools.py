"""Rate pools of live calls that processes share."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "live_processes",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "live_pools",
        sa.Column("key_id", WORD, primary_key=True),
        sa.Column("model", WORD, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.Double),
        sa.Column("tokens", sa.Double),
    )
    op.create_index("live_pools_age", "live_pools", ["at"])
