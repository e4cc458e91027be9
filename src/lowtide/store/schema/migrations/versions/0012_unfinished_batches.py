"""The unfinished batches of an organization are counted when it makes another.

Only an index, which code of 0011 beside this one neither needs nor minds.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    unfinished = sa.text("ended_at IS NULL")
    op.create_index(
        "batches_unfinished",
        "batches",
        ["organization_id", "flex"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
