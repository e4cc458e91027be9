"""The first schema. Its number comes after those of development versions, which are refused."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = None
least_code = "0013"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    _make_tenants()
    _add_default_tenants()
    _make_files()
    _make_batches()
    _make_work()
    _make_money()
    _make_scheduling()
    _make_workers()


def _index(name: str, table: str, columns: list[Any], only: str | None = None) -> None:
    """`only`: the index has these rows alone."""
    rows = None if only is None else sa.text(only)
    op.create_index(name, table, columns, sqlite_where=rows, postgresql_where=rows)


def _add_default_tenants() -> None:
    """The organization and the project of who runs Lowtide without keys."""
    # A migration is called by nobody who could pass the time.
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    names = ("id", "name", "created_at")
    organization = {"id": "org_default", "name": "Default", "created_at": now, "limits": "{}"}
    organizations = sa.table("organizations", *map(sa.column, (*names, "limits")))
    op.bulk_insert(organizations, [organization])
    project = {"id": "proj_default", "name": "Default", "created_at": now}
    projects = sa.table("projects", *map(sa.column, (*names, "organization_id")))
    op.bulk_insert(projects, [project | {"organization_id": "org_default"}])


def _make_tenants() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("name", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("requests_in_flight", sa.BigInteger),
        sa.Column("spend_cap_pico", sa.Text),
        sa.Column("paused_at", sa.BigInteger),
        sa.Column("weight", sa.BigInteger),
    )
    _index("organizations_bounded", "organizations", ["id"], only="requests_in_flight IS NOT NULL")
    op.create_table(
        "projects",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("organization_id", WORD, sa.ForeignKey("organizations.id"), nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    _index("projects_by_organization", "projects", ["organization_id", "created_at"])
    op.create_table(
        "api_keys",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("project_id", WORD, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("secret_hash", WORD, nullable=False),
        sa.Column("hint", WORD, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
    )
    _index("api_keys_by_project", "api_keys", ["project_id", "created_at"])


def _make_files() -> None:
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
        sa.Column("flex", WORD),
    )
    _index(
        "files_announced", "files", ["project_id"], only="status = 'pending' AND deleted_at IS NULL"
    )
    _index("files_blob", "files", ["blob_key"])
    _index("files_deleted", "files", ["deleted_at"])
    _index("files_expiry", "files", ["expires_at"])
    _index("files_listed", "files", ["project_id", "created_at", "id"], only="flex IS NULL")
    _index("files_page", "files", ["project_id", "created_at", "id"])
    _index(
        "files_pinned",
        "files",
        ["project_id", "bytes"],
        only="deleted_at IS NOT NULL AND blob_key != ''",
    )
    _index("files_stored", "files", ["project_id", "bytes"], only="deleted_at IS NULL")
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
        sa.Column("completion_expires_at", sa.BigInteger),
        sa.Column("choice_digest", WORD, nullable=False),
    )
    _index("uploads_ended", "uploads", ["ended_at"])
    _index(
        "uploads_pending", "uploads", ["project_id", "expires_at", "bytes"], only="ended_at IS NULL"
    )
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
    _index("upload_parts_blob", "upload_parts", ["blob_key"])
    columns = ["upload_id", "number"]
    op.create_index("upload_parts_by_number", "upload_parts", columns, unique=True)
    op.create_table(
        "garbage",
        sa.Column("blob_key", WORD, primary_key=True),
        sa.Column("added_at", sa.BigInteger, nullable=False),
    )


def _make_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("organization_id", WORD, sa.ForeignKey("organizations.id"), nullable=False),
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
        sa.Column("results_seq", sa.BigInteger, nullable=False),
        sa.Column("task_owner", WORD),
        sa.Column("task_token", sa.BigInteger, nullable=False),
        sa.Column("task_expires_at", sa.BigInteger),
        sa.Column("swept_at", sa.BigInteger),
        sa.Column("paused_reason", WORD),
        sa.Column("cost", sa.Text),
        sa.Column("flex", WORD),
        sa.Column("answered_at", sa.BigInteger),
        sa.Column("unreported", sa.BigInteger, nullable=False),
        sa.Column("warnings", sa.Text, nullable=False),
        sa.CheckConstraint("completed + failed <= total", name="batches_counts"),
    )
    _index("batches_awaited", "batches", ["id"], only="flex = 'awaited' AND ended_at IS NULL")
    _index("batches_by_organization", "batches", ["organization_id", "created_at"])
    _index("batches_digest", "batches", ["project_id", "digest", "created_at"])
    _index("batches_input", "batches", ["input_file_id"])
    _index("batches_listed", "batches", ["project_id", "created_at", "id"], only="flex IS NULL")
    _index("batches_page", "batches", ["project_id", "created_at", "id"])
    _index("batches_plan", "batches", ["plan_key"])
    _index("batches_status", "batches", ["status", "expires_at"])
    _index("batches_unfinished", "batches", ["organization_id", "flex"], only="ended_at IS NULL")
    _index("batches_unswept", "batches", ["ended_at"], only="swept_at IS NULL")
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
        sa.Column("planned_cost", sa.Float, nullable=False),
        sa.Column("unreported", sa.BigInteger, nullable=False),
        sa.CheckConstraint("completed + failed <= requests", name="batch_models_counts"),
    )


def _make_work() -> None:
    op.create_table(
        "chunks",
        sa.Column("batch_id", WORD, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("organization_id", WORD, nullable=False),
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
        sa.Column("cost", sa.Float, nullable=False),
        sa.CheckConstraint(
            "state IN ('waiting', 'paused', 'leased', 'done', 'dropped')", name="chunks_state"
        ),
        sa.CheckConstraint("settled <= count", name="chunks_settled"),
    )
    _index("chunks_leased", "chunks", ["lease_expires_at"], only="state = 'leased'")
    order = [sa.text("priority DESC"), "deadline_at", "batch_created_at", "batch_id", "seq"]
    queue = ["model", "organization_id", *order]
    _index("chunks_waiting_by_organization", "chunks", queue, only="state = 'waiting'")
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
    _index("slices_segment", "slices", ["segment_key"])


def _make_money() -> None:
    op.create_table(
        "ledger",
        sa.Column("batch_id", WORD, primary_key=True),
        sa.Column("model", WORD, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("organization_id", WORD, nullable=False),
        sa.Column("project_id", WORD, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("live_input", sa.BigInteger, nullable=False),
        sa.Column("live_cached", sa.BigInteger, nullable=False),
        sa.Column("live_output", sa.BigInteger, nullable=False),
        sa.Column("batch_input", sa.BigInteger, nullable=False),
        sa.Column("batch_cached", sa.BigInteger, nullable=False),
        sa.Column("batch_output", sa.BigInteger, nullable=False),
        sa.Column("discount", WORD, nullable=False),
        sa.Column("charge_pico", sa.BigInteger, nullable=False),
        sa.Column("unreported", sa.BigInteger, nullable=False),
    )
    _index("ledger_by_organization", "ledger", ["organization_id", "at"])
    op.create_table(
        "spend",
        sa.Column("organization_id", WORD, sa.ForeignKey("organizations.id"), primary_key=True),
        sa.Column("month", WORD, primary_key=True),
        sa.Column("charge_pico", sa.Text, nullable=False),
    )


def _make_scheduling() -> None:
    op.create_table(
        "virtual_times",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("organization_id", WORD, primary_key=True),
        sa.Column("virtual_time", sa.Float, nullable=False),
    )
    op.create_table(
        "urgent_batches",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("batch_id", WORD, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
    )
    op.create_table(
        "throughputs",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("work", sa.Float, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("requests", sa.Float, nullable=False),
        sa.Column("output_tokens", sa.Float, nullable=False),
        sa.Column("hour_at", sa.BigInteger, nullable=False),
        sa.Column("hour_work", sa.Float, nullable=False),
        sa.Column("hour_seconds", sa.Float, nullable=False),
    )
    op.create_table(
        "forecast_hours",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("hour_of_week", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("p20", sa.Float, nullable=False),
        sa.Column("p50", sa.Float, nullable=False),
        sa.Column("weeks", sa.Integer, nullable=False),
    )
    op.create_table(
        "token_models",
        sa.Column("model", WORD, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("saved_at", sa.BigInteger, nullable=False),
    )


def _make_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("heartbeat", sa.BigInteger, nullable=False),
        sa.Column("ttl_ms", sa.BigInteger, nullable=False),
        sa.Column("wants", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "worker_reports",
        sa.Column("worker_id", WORD, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("report", sa.Text, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("name", WORD, primary_key=True),
        sa.Column("worker_id", WORD),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("claimed_at", sa.BigInteger),
    )
    op.create_table("schema_compatibility", sa.Column("least_code", WORD, primary_key=True))
