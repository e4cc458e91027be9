"""The instant from which a batch is held: of those held now, that of the last pause noted."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.add_column("batches", sa.Column("held_at", sa.BigInteger))
    op.execute(
        "UPDATE batches SET held_at = (SELECT max(at) FROM batch_notes"
        " WHERE batch_notes.batch_id = batches.id AND batch_notes.kind = 'paused')"
        " WHERE paused_reason IS NOT NULL"
    )
