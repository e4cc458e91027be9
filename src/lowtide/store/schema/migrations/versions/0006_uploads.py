"""Uploads in parts: two new tables, nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("project_id", WORD, nullable=False),
        sa.Column("file_id", WORD, nullable=False),
        sa.Column("purpose", WORD, nullable=False),
        sa.Column("filename", WORD, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("parts", sa.Integer, nullable=False),
        sa.Column("checksum", WORD, nullable=False),
        sa.Column("file_ttl_s", sa.BigInteger, nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("completing_until", sa.BigInteger),
        sa.Column("made_of", WORD, nullable=False),
    )
    op.create_index(
        "uploads_pending",
        "uploads",
        ["project_id", "expires_at", "bytes"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index("uploads_ended", "uploads", ["ended_at"])
    op.create_table(
        "upload_parts",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("upload_id", WORD, sa.ForeignKey("uploads.id"), nullable=False),
        sa.Column("number", sa.Integer),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("md5", WORD, nullable=False),
        sa.Column("blob_key", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("upload_parts_of", "upload_parts", ["upload_id", "number"], unique=True)
    op.create_index("upload_parts_blob", "upload_parts", ["blob_key"])
