"""When a request of a batch last settled: workers that restart do not know it."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("batches", sa.Column("last_settled_at", sa.BigInteger))
