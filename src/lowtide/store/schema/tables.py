"""The tables. Statements are built from them; the migrations make them; a test holds the two equal.

Words are those of design.md. What is denormalised onto chunks (organization, model, priority,
deadline, creation) is there for one reason: the index `chunks_waiting_by_organization` is the queue
of each organization, so a claim reads its first entries and never sorts. What decides whose turn it
is lies in schedule_tables.py. Invariant: a chunk waits only while its batch is in
progress and not paused.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    literal_column,
)

from lowtide.core.accounts.ledger import Cost
from lowtide.core.accounts.tenancy import OrganizationLimits, Scope
from lowtide.core.batches.batch import BatchError
from lowtide.store.schema.columns import WORD, Instant, Json, Words

HEAD: Final = "0025"
"""The revision that this code needs. Revisions are numbered, so a newer one is recognised."""

metadata = MetaData()

# Written out in the statements, not bound: neither database uses a partial index for a parameter.
WAITING: Final = literal_column("'waiting'", String)
LEASED: Final = literal_column("'leased'", String)
PAUSED: Final = literal_column("'paused'", String)
"""Would wait, if its batch were not paused."""
PENDING: Final = literal_column("'pending'", String)
"""An announced file without bytes."""
NO_BLOB: Final = literal_column("''", String)
"""The key of a blob that is gone, or has not come."""
AWAITED: Final = literal_column("'awaited'", String)
"""The `flex` of batches that single calls are waiting for."""


def _text(name: str, **rest: Any) -> Column[str]:
    return Column(name, WORD, nullable=rest.pop("nullable", False), **rest)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _at(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, Instant, nullable=nullable)


def _whole(name: str, *, nullable: bool) -> Column[Any]:
    """A whole number without bound: as pico-dollars, 64 bits end at 9.2 million dollars."""
    return Column(name, Json(int), nullable=nullable)


def _only(rows: ColumnElement[bool]) -> dict[str, Any]:
    """The keywords of an index that has these rows alone."""
    return {"sqlite_where": rows, "postgresql_where": rows}


organizations = Table(
    "organizations",
    metadata,
    _text("id", primary_key=True),
    _text("name"),
    _at("created_at", nullable=False),
    Column("limits", Json(OrganizationLimits), nullable=False),
    Column("requests_in_flight", BigInteger),  # a copy out of `limits`, for the claim
    _whole("spend_cap_pico", nullable=True),
    _at("paused_at"),  # since then its batches wait for the cap to rise, or for a new month
    Column("weight", BigInteger),  # a copy out of `limits`, for the claim; None: 1
)
Index(
    "organizations_bounded",
    organizations.c.id,
    **_only(organizations.c.requests_in_flight.is_not(None)),
)

projects = Table(
    "projects",
    metadata,
    _text("id", primary_key=True),
    Column("organization_id", WORD, ForeignKey(organizations.c.id), nullable=False),
    _text("name"),
    _at("created_at", nullable=False),
)
Index("projects_by_organization", projects.c.organization_id, projects.c.created_at)

api_keys = Table(
    "api_keys",
    metadata,
    _text("id", primary_key=True),
    Column("project_id", WORD, ForeignKey(projects.c.id), nullable=False),
    _text("name"),
    _text("secret_hash"),
    _text("hint"),
    Column("scopes", Json(frozenset[Scope]), nullable=False),
    _at("created_at", nullable=False),
    _at("expires_at"),
    _at("revoked_at"),
    _at("last_used_at"),
)
Index("api_keys_by_project", api_keys.c.project_id, api_keys.c.created_at)


files = Table(
    "files",
    metadata,
    _text("id", primary_key=True),
    _text("project_id"),
    _text("purpose"),
    _text("filename"),
    _text("status"),
    _text("dialect"),
    _at("created_at", nullable=False),
    _at("expires_at"),
    _count("bytes"),
    _count("lines"),
    _text("sha256"),
    _text("blob_key"),
    _text("batch_id", nullable=True),
    _at("deleted_at"),  # hidden since; the row stays until nothing needs its blob
    _text("flex", nullable=True),  # of single calls: lists pass them over
)
Index("files_page", files.c.project_id, files.c.created_at, files.c.id)
Index(
    "files_listed",
    files.c.project_id,
    files.c.created_at,
    files.c.id,
    **_only(files.c.flex.is_(None)),
)
Index("files_blob", files.c.blob_key)
Index("files_expiry", files.c.expires_at)
Index("files_deleted", files.c.deleted_at)
Index(
    "files_stored",  # the sum of a project's bytes, read from the index alone
    files.c.project_id,
    files.c.bytes,
    **_only(files.c.deleted_at.is_(None)),
)
Index(
    "files_pinned",  # deleted, and an unfinished batch reads them still
    files.c.project_id,
    files.c.bytes,
    **_only(files.c.deleted_at.is_not(None) & (files.c.blob_key != NO_BLOB)),
)
Index(
    "files_announced",
    files.c.project_id,
    **_only((files.c.status == PENDING) & files.c.deleted_at.is_(None)),
)

batches = Table(
    "batches",
    metadata,
    _text("id", primary_key=True),
    Column("organization_id", WORD, ForeignKey(organizations.c.id), nullable=False),
    _text("project_id"),
    _text("user_id"),
    _text("dialect"),
    _text("input_file_id"),
    _count("input_bytes"),
    _text("input_key"),  # a copy: the file may be deleted while the batch still reads its blob
    _text("endpoint"),
    _text("status"),
    _count("completion_window_s"),
    Column("metadata", Json(dict[str, str]), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("output_expires_after_s", BigInteger),
    _at("created_at", nullable=False),
    _at("expires_at", nullable=False),
    _at("in_progress_at"),
    _at("finalizing_at"),
    _at("cancelling_at"),
    _at("completed_at"),
    _at("failed_at"),
    _at("expired_at"),
    _at("cancelled_at"),
    _at("first_settled_at"),
    _at("ended_at"),
    _count("total"),
    _count("completed"),
    _count("failed"),
    _count("input_tokens"),
    _count("cached_tokens"),
    _count("output_tokens"),
    _count("reasoning_tokens"),
    Column("errors", Json(tuple[BatchError, ...]), nullable=False),
    _count("errors_total"),
    _text("output_file_id", nullable=True),
    _text("error_file_id", nullable=True),
    _text("plan_key", nullable=True),
    _text("model", nullable=True),
    _text("digest"),
    _count("results_seq"),  # the seq of the next slice
    _text("task_owner", nullable=True),
    _count("task_token"),
    _at("task_expires_at"),  # None: validation or assembly is not leased
    _at("swept_at"),  # slices and chunks are gone
    Column("paused_reason", Words, key="holds"),  # while validating or in progress
    Column("cost", Json(Cost)),  # the running sum of the batch's ledger entries
    _text("flex", nullable=True),  # made of single calls, which wait for it or ask for it
    _at("answered_at"),  # the create; None: its client may not have heard of it
    _count("unreported"),  # answers without usable usage
    Column("warnings", Json(tuple[BatchError, ...]), nullable=False),
    _text("retry_of", nullable=True),
    _text("root_id", nullable=True),  # of a retry: the first batch of its tree
    _text("model_override", nullable=True),
    _text("in_flight", nullable=True),  # of a batch with holds
    _at("deleted_at"),  # hidden since
    Column("deletes_input", Boolean),
    _at("last_settled_at"),
    Column("abort_holds", Words),  # those of `holds` that abort the calls in flight
    _text("webhook", nullable=True),  # as it is shown; the outbox reads batch_webhooks
    _at("queued_at"),  # planned and still validating: waits for enqueued tokens since
    _at("held_at"),  # it has holds since; None: none, or of a version that did not say
    CheckConstraint("completed + failed <= total", name="batches_counts"),
)
Index("batches_page", batches.c.project_id, batches.c.created_at, batches.c.id)
Index(
    "batches_listed",
    batches.c.project_id,
    batches.c.created_at,
    batches.c.id,
    **_only(batches.c.flex.is_(None)),
)
Index(
    "batches_awaited",  # that calls wait for: a handful
    batches.c.id,
    **_only((batches.c.flex == AWAITED) & batches.c.ended_at.is_(None)),
)
Index(
    "batches_unfinished",
    batches.c.organization_id,
    batches.c.flex,
    **_only(batches.c.ended_at.is_(None)),
)
Index("batches_queued", batches.c.organization_id, **_only(batches.c.queued_at.is_not(None)))
Index("batches_by_organization", batches.c.organization_id, batches.c.created_at)
Index("batches_digest", batches.c.project_id, batches.c.digest, batches.c.created_at)
Index("batches_status", batches.c.status, batches.c.expires_at)
Index("batches_input", batches.c.input_file_id)
Index("batches_plan", batches.c.plan_key)
Index("batches_retries", batches.c.root_id, **_only(batches.c.root_id.is_not(None)))
Index(
    "batches_unswept",
    batches.c.ended_at,
    **_only(batches.c.swept_at.is_(None)),
)

batch_models = Table(
    "batch_models",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    _text("model", primary_key=True),
    _count("requests"),  # as planned
    _count("planned_tokens"),  # estimated input tokens of them
    _count("settled_tokens"),  # the part of that estimate whose requests have settled
    _count("completed"),
    _count("failed"),
    _count("input_tokens"),  # as the engines reported
    _count("cached_tokens"),
    _count("output_tokens"),
    _count("reasoning_tokens"),
    Column("planned_cost", Float, nullable=False),  # the sum of its chunks' costs
    _count("unreported"),
    CheckConstraint("completed + failed <= requests", name="batch_models_counts"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    _text("organization_id"),
    _text("state"),
    _text("model"),
    Column("priority", Integer, nullable=False),
    _at("deadline_at", nullable=False),
    _at("batch_created_at", nullable=False),
    _count("first"),
    Column("count", Integer, nullable=False),
    _count("input_tokens"),
    _count("input_bytes"),
    Column("done", LargeBinary, nullable=False),
    Column("settled", Integer, nullable=False),  # bits set in `done`
    _text("worker_id", nullable=True),
    _count("token"),
    _at("lease_expires_at"),
    Column("cost", Float, nullable=False),  # work units, estimated when it was planned
    CheckConstraint(
        "state IN ('waiting', 'paused', 'leased', 'done', 'dropped')", name="chunks_state"
    ),
    CheckConstraint("settled <= count", name="chunks_settled"),
)
CLAIM_ORDER: Final = (
    chunks.c.priority.desc(),
    chunks.c.deadline_at,
    chunks.c.batch_created_at,
    chunks.c.batch_id,
    chunks.c.seq,
)
Index(
    "chunks_waiting_by_organization",
    chunks.c.model,
    chunks.c.organization_id,
    *CLAIM_ORDER,
    **_only(chunks.c.state == WAITING),
)
Index(
    "chunks_leased",
    chunks.c.lease_expires_at,
    **_only(chunks.c.state == LEASED),
)

slices = Table(
    "slices",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_seq", Integer, nullable=False),
    _text("segment_key"),
    _count("offset"),
    _count("ok_bytes"),
    _count("failed_bytes"),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    _count("completed_before"),
    _count("failed_before"),
)
Index("slices_segment", slices.c.segment_key)

garbage = Table(
    "garbage",
    metadata,
    _text("blob_key", primary_key=True),
    _at("added_at", nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    _text("batch_id", primary_key=True),
    _text("model", primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _text("organization_id"),
    _text("project_id"),
    _at("at", nullable=False),
    _count("requests"),
    _count("input_tokens"),
    _count("cached_tokens"),
    _count("output_tokens"),
    _count("reasoning_tokens"),
    _count("live_input"),  # pico-dollars per token
    _count("live_cached"),
    _count("live_output"),
    _count("batch_input"),
    _count("batch_cached"),
    _count("batch_output"),
    _text("discount"),  # decimal digits, exact
    _count("charge_pico"),
    _count("unreported"),
)
Index("ledger_by_organization", ledger.c.organization_id, ledger.c.at)

spend = Table(
    "spend",
    metadata,
    Column("organization_id", WORD, ForeignKey(organizations.c.id), primary_key=True),
    _text("month", primary_key=True),  # YYYY-MM, in UTC
    _whole("charge_pico", nullable=False),  # the running sum of the month's ledger entries
)

token_models = Table(
    "token_models",
    metadata,
    _text("model", primary_key=True),
    Column("data", LargeBinary, nullable=False),  # core.tokens.token_model, about 6 KiB
    _at("saved_at", nullable=False),
)

schema_compatibility = Table(
    "schema_compatibility",
    metadata,
    _text("least_code", primary_key=True),  # one row: the least HEAD of code that may still run
)
