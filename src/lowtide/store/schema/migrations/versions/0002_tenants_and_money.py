"""Tenants and money: organizations, projects, keys; the ledger; batches that can be held.

What is there stays: every project that has files or batches becomes one of the default
organization. `batches` and `chunks` get columns and a state more, for which SQLite wants the tables
made anew, and with them those that refer to them.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Compared byte by byte in PostgreSQL, too.
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")

_REMADE = {
    "batches": (
        "batches_digest",
        "batches_input",
        "batches_page",
        "batches_plan",
        "batches_status",
        "batches_unswept",
    ),
    "batch_models": (),
    "chunks": ("chunks_leased", "chunks_waiting"),
    "slices": ("slices_segment",),
}


def upgrade() -> None:
    _make_tenants()
    _fill_tenants()
    for name, indexes in _REMADE.items():
        for index in indexes:
            op.drop_index(index, name)
        op.rename_table(name, f"{name}_0001")
    _make_batches()
    _index_batches()
    _make_batch_models()
    _make_chunks()
    _make_slices()
    _copy("batches", organization_id="'org_default'")
    _copy("batch_models")
    _copy("chunks", organization_id="'org_default'")
    _copy("slices")
    for name in reversed(_REMADE):
        op.drop_table(f"{name}_0001")
        _name_keys(name)
    op.create_index(
        "files_stored",
        "files",
        ["project_id", "bytes"],
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    _make_money()


def _copy(name: str, **more: str) -> None:
    """All rows from the old table; `more` are columns that it did not have, as SQL."""
    old = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(f"{name}_0001")]
    into = ", ".join(f'"{column}"' for column in [*old, *more])
    values = ", ".join([*(f'"{column}"' for column in old), *more.values()])
    op.execute(f"INSERT INTO {name} ({into}) SELECT {values} FROM {name}_0001")


def _name_keys(name: str) -> None:
    """PostgreSQL gave them other names, because the old tables still had these."""
    if op.get_bind().dialect.name == "postgresql":
        keys = [f"{name}_pkey"] + ([] if name == "batches" else [f"{name}_batch_id_fkey"])
        for key in keys:
            op.execute(f"ALTER TABLE {name} RENAME CONSTRAINT {key}1 TO {key}")


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
    )
    op.create_index(
        "organizations_bounded",
        "organizations",
        ["id"],
        sqlite_where=sa.text("requests_in_flight IS NOT NULL"),
        postgresql_where=sa.text("requests_in_flight IS NOT NULL"),
    )
    op.create_table(
        "projects",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("organization_id", WORD, sa.ForeignKey("organizations.id"), nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("projects_of", "projects", ["organization_id", "created_at"])
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
    op.create_index("api_keys_of", "api_keys", ["project_id", "created_at"])


def _fill_tenants() -> None:
    # A migration is asked by nobody who could say what time it is.
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    organization = sa.table(
        "organizations", *(sa.column(name) for name in ("id", "name", "created_at", "limits"))
    )
    op.bulk_insert(
        organization,
        [{"id": "org_default", "name": "Default", "created_at": now, "limits": "{}"}],
    )
    project = sa.table(
        "projects",
        *(sa.column(name) for name in ("id", "organization_id", "name", "created_at")),
    )
    known = op.get_bind().scalars(
        sa.text("SELECT project_id FROM files UNION SELECT project_id FROM batches")
    )
    op.bulk_insert(
        project,
        [
            {"id": id, "organization_id": "org_default", "name": name, "created_at": now}
            for id, name in {**{id: id for id in sorted(known)}, "proj_default": "Default"}.items()
        ],
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
        sa.Column("answered", sa.Boolean, nullable=False),
        sa.Column("results_seq", sa.BigInteger, nullable=False),
        sa.Column("task_owner", WORD),
        sa.Column("task_token", sa.BigInteger, nullable=False),
        sa.Column("task_expires_at", sa.BigInteger),
        sa.Column("swept_at", sa.BigInteger),
        sa.Column("paused_reason", WORD),
        sa.Column("cost", sa.Text),
        sa.CheckConstraint("completed + failed <= total", name="batches_counts"),
    )


def _index_batches() -> None:
    op.create_index("batches_digest", "batches", ["project_id", "digest", "created_at"])
    op.create_index("batches_input", "batches", ["input_file_id"])
    op.create_index("batches_of", "batches", ["organization_id", "created_at"])
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


def _make_batch_models() -> None:
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


def _make_chunks() -> None:
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
        sa.CheckConstraint(
            "state IN ('waiting', 'held', 'leased', 'done', 'dropped')", name="chunks_state"
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
    order: list[str | sa.TextClause] = [
        sa.text("priority DESC"),
        "deadline_at",
        "batch_created_at",
        "batch_id",
        "seq",
    ]
    for name, columns in (
        ("chunks_waiting", ["model", *order]),
        ("chunks_waiting_of", ["model", "organization_id", *order]),
    ):
        op.create_index(
            name,
            "chunks",
            columns,
            sqlite_where=sa.text("state = 'waiting'"),
            postgresql_where=sa.text("state = 'waiting'"),
        )


def _make_slices() -> None:
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
    )
    op.create_index("ledger_of", "ledger", ["organization_id", "at"])
    op.create_table(
        "spend",
        sa.Column("organization_id", WORD, sa.ForeignKey("organizations.id"), primary_key=True),
        sa.Column("month", WORD, primary_key=True),
        sa.Column("charge_pico", sa.Text, nullable=False),
    )
