"""The first schema: files, batches, chunks, slices, garbage."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("project_id", WORD, nullable=False),
        sa.Column("user_id", WORD, nullable=False),
        sa.Column("dialect", WORD, nullable=False),
        sa.Column("input_file_id", WORD, nullable=False),
        sa.Column("input_bytes", sa.BigInteger, nullable=False),
        sa.Column("input_key", WORD, nullable=False),
        sa.Column("endpoint", WORD, nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("completion_window_s", sa.BigInteger, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("output_expires_after_s", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("in_progress_at", sa.BigInteger),
        sa.Column("finalizing_at", sa.BigInteger),
        sa.Column("cancelling_at", sa.BigInteger),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("failed_at", sa.BigInteger),
        sa.Column("expired_at", sa.BigInteger),
        sa.Column("cancelled_at", sa.BigInteger),
        sa.Column("first_settled_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("completed", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.Text, nullable=False),
        sa.Column("errors_total", sa.BigInteger, nullable=False),
        sa.Column("output_file_id", WORD),
        sa.Column("error_file_id", WORD),
        sa.Column("plan_key", WORD),
        sa.Column("model", WORD),
        sa.Column("digest", WORD, nullable=False),
        sa.Column("answered", sa.Boolean, nullable=False),
        sa.Column("results_seq", sa.BigInteger, nullable=False),
        sa.Column("task_owner", WORD),
        sa.Column("task_token", sa.BigInteger, nullable=False),
        sa.Column("task_expires_at", sa.BigInteger),
        sa.Column("swept_at", sa.BigInteger),
        sa.CheckConstraint("completed + failed <= total", name="batches_counts"),
    )
    op.create_index("batches_digest", "batches", ["project_id", "digest", "created_at"])
    op.create_index("batches_input", "batches", ["input_file_id"])
    op.create_index("batches_page", "batches", ["project_id", "created_at", "id"])
    op.create_index("batches_plan", "batches", ["plan_key"])
    op.create_index("batches_status", "batches", ["status", "expires_at"])
    op.create_index(
        "batches_unswept",
        "batches",
        ["ended_at"],
        sqlite_where=sa.text("swept_at IS NULL"),
        postgresql_where=sa.text("swept_at IS NULL"),
    )
    op.create_table(
        "files",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("project_id", WORD, nullable=False),
        sa.Column("purpose", WORD, nullable=False),
        sa.Column("filename", WORD, nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("dialect", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("lines", sa.BigInteger, nullable=False),
        sa.Column("sha256", WORD, nullable=False),
        sa.Column("blob_key", WORD, nullable=False),
        sa.Column("batch_id", WORD),
        sa.Column("deleted_at", sa.BigInteger),
    )
    op.create_index("files_blob", "files", ["blob_key"])
    op.create_index("files_deleted", "files", ["deleted_at"])
    op.create_index("files_expiry", "files", ["expires_at"])
    op.create_index("files_page", "files", ["project_id", "created_at", "id"])
    op.create_table(
        "garbage",
        sa.Column("blob_key", WORD, primary_key=True),
        sa.Column("added_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "batch_models",
        sa.Column("batch_id", WORD, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("model", WORD, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("planned_tokens", sa.BigInteger, nullable=False),
        sa.Column("settled_tokens", sa.BigInteger, nullable=False),
        sa.Column("completed", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.CheckConstraint("completed + failed <= requests", name="batch_models_counts"),
    )
    op.create_table(
        "chunks",
        sa.Column("batch_id", WORD, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("model", WORD, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("deadline_at", sa.BigInteger, nullable=False),
        sa.Column("batch_created_at", sa.BigInteger, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("input_bytes", sa.BigInteger, nullable=False),
        sa.Column("done", sa.LargeBinary, nullable=False),
        sa.Column("settled", sa.Integer, nullable=False),
        sa.Column("worker_id", WORD),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger),
        sa.CheckConstraint(
            "state IN ('waiting', 'leased', 'done', 'dropped')", name="chunks_state"
        ),
        sa.CheckConstraint("settled <= count", name="chunks_settled"),
    )
    op.create_index(
        "chunks_leased",
        "chunks",
        ["lease_expires_at"],
        sqlite_where=sa.text("state = 'leased'"),
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index(
        "chunks_waiting",
        "chunks",
        ["model", sa.text("priority DESC"), "deadline_at", "batch_created_at", "batch_id", "seq"],
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "slices",
        sa.Column("batch_id", WORD, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("chunk_seq", sa.Integer, nullable=False),
        sa.Column("segment_key", WORD, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("ok_bytes", sa.BigInteger, nullable=False),
        sa.Column("failed_bytes", sa.BigInteger, nullable=False),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("completed_before", sa.BigInteger, nullable=False),
        sa.Column("failed_before", sa.BigInteger, nullable=False),
    )
    op.create_index("slices_segment", "slices", ["segment_key"])
