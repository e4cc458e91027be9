"""Warnings of validation: what stops nothing, and a submitter should know.

Only an addition: code of 0009 beside this one plans batches without warnings.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("batches", sa.Column("warnings", sa.Text, nullable=False, server_default="[]"))
