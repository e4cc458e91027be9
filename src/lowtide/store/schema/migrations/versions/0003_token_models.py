"""What was learnt about models' tokenizers: a new table, nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "token_models",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("saved_at", sa.BigInteger, nullable=False),
    )
