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
from lowtide.store.schema.columns import WORD, Json, Words, at, count, only, text

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


def _whole(name: str, *, nullable: bool) -> Column[Any]:
    """A whole number without bound: as pico-dollars, 64 bits end at 9.2 million dollars."""
    return Column(name, Json(int), nullable=nullable)


organizations = Table(
    "organizations",
    metadata,
    text("id", primary_key=True),
    text("name"),
    at("created_at", nullable=False),
    Column("limits", Json(OrganizationLimits), nullable=False),
    Column("requests_in_flight", BigInteger),  # a copy out of `limits`, for the claim
    _whole("spend_cap_pico", nullable=True),
    at("paused_at"),  # since then its batches wait for the cap to rise, or for a new month
    Column("weight", BigInteger),  # a copy out of `limits`, for the claim; None: 1
)
Index(
    "organizations_bounded",
    organizations.c.id,
    **only(organizations.c.requests_in_flight.is_not(None)),
)

projects = Table(
    "projects",
    metadata,
    text("id", primary_key=True),
    Column("organization_id", WORD, ForeignKey(organizations.c.id), nullable=False),
    text("name"),
    at("created_at", nullable=False),
)
Index("projects_by_organization", projects.c.organization_id, projects.c.created_at)

api_keys = Table(
    "api_keys",
    metadata,
    text("id", primary_key=True),
    Column("project_id", WORD, ForeignKey(projects.c.id), nullable=False),
    text("name"),
    text("secret_hash"),
    text("hint"),
    Column("scopes", Json(frozenset[Scope]), nullable=False),
    at("created_at", nullable=False),
    at("expires_at"),
    at("revoked_at"),
    at("last_used_at"),
)
Index("api_keys_by_project", api_keys.c.project_id, api_keys.c.created_at)


files = Table(
    "files",
    metadata,
    text("id", primary_key=True),
    text("project_id"),
    text("purpose"),
    text("filename"),
    text("status"),
    text("dialect"),
    at("created_at", nullable=False),
    at("expires_at"),
    count("bytes"),
    count("lines"),
    text("sha256"),
    text("blob_key"),
    text("batch_id", nullable=True),
    at("deleted_at"),  # hidden since; the row stays until nothing needs its blob
    text("flex", nullable=True),  # of single calls: lists pass them over
)
Index("files_page", files.c.project_id, files.c.created_at, files.c.id)
Index(
    "files_listed",
    files.c.project_id,
    files.c.created_at,
    files.c.id,
    **only(files.c.flex.is_(None)),
)
Index("files_blob", files.c.blob_key)
Index("files_expiry", files.c.expires_at)
Index("files_deleted", files.c.deleted_at)
Index(
    "files_stored",  # the sum of a project's bytes, read from the index alone
    files.c.project_id,
    files.c.bytes,
    **only(files.c.deleted_at.is_(None)),
)
Index(
    "files_pinned",  # deleted, and an unfinished batch reads them still
    files.c.project_id,
    files.c.bytes,
    **only(files.c.deleted_at.is_not(None) & (files.c.blob_key != NO_BLOB)),
)
Index(
    "files_announced",
    files.c.project_id,
    **only((files.c.status == PENDING) & files.c.deleted_at.is_(None)),
)

batches = Table(
    "batches",
    metadata,
    text("id", primary_key=True),
    Column("organization_id", WORD, ForeignKey(organizations.c.id), nullable=False),
    text("project_id"),
    text("user_id"),
    text("dialect"),
    text("input_file_id"),
    count("input_bytes"),
    text("input_key"),  # a copy: the file may be deleted while the batch still reads its blob
    text("endpoint"),
    text("status"),
    count("completion_window_s"),
    Column("metadata", Json(dict[str, str]), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("output_expires_after_s", BigInteger),
    at("created_at", nullable=False),
    at("expires_at", nullable=False),
    at("in_progress_at"),
    at("finalizing_at"),
    at("cancelling_at"),
    at("completed_at"),
    at("failed_at"),
    at("expired_at"),
    at("cancelled_at"),
    at("first_settled_at"),
    at("ended_at"),
    count("total"),
    count("completed"),
    count("failed"),
    count("input_tokens"),
    count("cached_tokens"),
    count("output_tokens"),
    count("reasoning_tokens"),
    Column("errors", Json(tuple[BatchError, ...]), nullable=False),
    count("errors_total"),
    text("output_file_id", nullable=True),
    text("error_file_id", nullable=True),
    text("plan_key", nullable=True),
    text("model", nullable=True),
    text("digest"),
    count("results_seq"),  # the seq of the next slice
    text("task_owner", nullable=True),
    count("task_token"),
    at("task_expires_at"),  # None: validation or assembly is not leased
    at("swept_at"),  # slices and chunks are gone
    Column("paused_reason", Words, key="holds"),  # while validating or in progress
    Column("cost", Json(Cost)),  # the running sum of the batch's ledger entries
    text("flex", nullable=True),  # made of single calls, which wait for it or ask for it
    at("answered_at"),  # the create; None: its client may not have heard of it
    count("unreported"),  # answers without usable usage
    Column("warnings", Json(tuple[BatchError, ...]), nullable=False),
    text("retry_of", nullable=True),
    text("root_id", nullable=True),  # of a retry: the first batch of its tree
    text("model_override", nullable=True),
    text("in_flight", nullable=True),  # of a batch with holds
    at("deleted_at"),  # hidden since
    Column("deletes_input", Boolean),
    at("last_settled_at"),
    Column("abort_holds", Words),  # those of `holds` that abort the calls in flight
    text("webhook", nullable=True),  # as it is shown; the outbox reads batch_webhooks
    at("queued_at"),  # planned and still validating: waits for enqueued tokens since
    at("held_at"),  # it has holds since; None: none, or of a version that did not say
    CheckConstraint("completed + failed <= total", name="batches_counts"),
)
Index("batches_page", batches.c.project_id, batches.c.created_at, batches.c.id)
Index(
    "batches_listed",
    batches.c.project_id,
    batches.c.created_at,
    batches.c.id,
    **only(batches.c.flex.is_(None)),
)
Index(
    "batches_awaited",  # that calls wait for: a handful
    batches.c.id,
    **only((batches.c.flex == AWAITED) & batches.c.ended_at.is_(None)),
)
Index(
    "batches_unfinished",
    batches.c.organization_id,
    batches.c.flex,
    **only(batches.c.ended_at.is_(None)),
)
Index("batches_queued", batches.c.organization_id, **only(batches.c.queued_at.is_not(None)))
Index("batches_by_organization", batches.c.organization_id, batches.c.created_at)
Index("batches_digest", batches.c.project_id, batches.c.digest, batches.c.created_at)
Index("batches_status", batches.c.status, batches.c.expires_at)
Index("batches_input", batches.c.input_file_id)
Index("batches_plan", batches.c.plan_key)
Index("batches_retries", batches.c.root_id, **only(batches.c.root_id.is_not(None)))
Index(
    "batches_unswept",
    batches.c.ended_at,
    **only(batches.c.swept_at.is_(None)),
)

batch_models = Table(
    "batch_models",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    text("model", primary_key=True),
    count("requests"),  # as planned
    count("planned_tokens"),  # estimated input tokens of them
    count("settled_tokens"),  # the part of that estimate whose requests have settled
    count("completed"),
    count("failed"),
    count("input_tokens"),  # as the engines reported
    count("cached_tokens"),
    count("output_tokens"),
    count("reasoning_tokens"),
    Column("planned_cost", Float, nullable=False),  # the sum of its chunks' costs
    count("unreported"),
    CheckConstraint("completed + failed <= requests", name="batch_models_counts"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    text("organization_id"),
    text("state"),
    text("model"),
    Column("priority", Integer, nullable=False),
    at("deadline_at", nullable=False),
    at("batch_created_at", nullable=False),
    count("first"),
    Column("count", Integer, nullable=False),
    count("input_tokens"),
    count("input_bytes"),
    Column("done", LargeBinary, nullable=False),
    Column("settled", Integer, nullable=False),  # bits set in `done`
    text("worker_id", nullable=True),
    count("token"),
    at("lease_expires_at"),
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
    **only(chunks.c.state == WAITING),
)
Index(
    "chunks_leased",
    chunks.c.lease_expires_at,
    **only(chunks.c.state == LEASED),
)

slices = Table(
    "slices",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_seq", Integer, nullable=False),
    text("segment_key"),
    count("offset"),
    count("ok_bytes"),
    count("failed_bytes"),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    count("completed_before"),
    count("failed_before"),
)
Index("slices_segment", slices.c.segment_key)

garbage = Table(
    "garbage",
    metadata,
    text("blob_key", primary_key=True),
    at("added_at", nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    text("batch_id", primary_key=True),
    text("model", primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    text("organization_id"),
    text("project_id"),
    at("at", nullable=False),
    count("requests"),
    count("input_tokens"),
    count("cached_tokens"),
    count("output_tokens"),
    count("reasoning_tokens"),
    count("live_input"),  # pico-dollars per token
    count("live_cached"),
    count("live_output"),
    count("batch_input"),
    count("batch_cached"),
    count("batch_output"),
    text("discount"),  # decimal digits, exact
    count("charge_pico"),
    count("unreported"),
)
Index("ledger_by_organization", ledger.c.organization_id, ledger.c.at)

spend = Table(
    "spend",
    metadata,
    Column("organization_id", WORD, ForeignKey(organizations.c.id), primary_key=True),
    text("month", primary_key=True),  # YYYY-MM, in UTC
    _whole("charge_pico", nullable=False),  # the running sum of the month's ledger entries
)

token_models = Table(
    "token_models",
    metadata,
    text("model", primary_key=True),
    Column("data", LargeBinary, nullable=False),  # core.tokens.token_model, about 6 KiB
    at("saved_at", nullable=False),
)

schema_compatibility = Table(
    "schema_compatibility",
    metadata,
    text("least_code", primary_key=True),  # one row: the least HEAD of code that may still run
)
