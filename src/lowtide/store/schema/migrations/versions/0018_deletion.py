"""Deletion of batches: hidden since, and whether the input goes with the end."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("batches", sa.Column("deleted_at", sa.BigInteger))
    op.add_column("batches", sa.Column("deletes_input", sa.Boolean))
