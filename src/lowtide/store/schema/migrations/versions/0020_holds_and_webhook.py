"""Which holds of a batch abort its calls in flight: what one asks ends with it. And what a batch
shows of its webhook.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    word = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.add_column("batches", sa.Column("abort_holds", word))
    op.add_column("batches", sa.Column("webhook", word))
