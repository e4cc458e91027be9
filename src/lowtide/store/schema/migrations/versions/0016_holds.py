"""Holds: what becomes of the calls in flight of a batch that is held."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    word = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.add_column("batches", sa.Column("in_flight", word))
