"""What an organization keeps is counted whole: files that a batch still reads, and announced ones.

Only indexes, which code of 0008 beside this one neither needs nor minds.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    pinned = sa.text("deleted_at IS NOT NULL AND blob_key != ''")
    announced = sa.text("status = 'pending' AND deleted_at IS NULL")
    op.create_index(
        "files_pinned",
        "files",
        ["project_id", "bytes"],
        sqlite_where=pinned,
        postgresql_where=pinned,
    )
    op.create_index(
        "files_announced",
        "files",
        ["project_id"],
        sqlite_where=announced,
        postgresql_where=announced,
    )
