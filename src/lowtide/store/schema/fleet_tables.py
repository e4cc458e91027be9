"""The tables of workers and of who owns which replica. They belong to the schema of tables.py."""

from sqlalchemy import BigInteger, Column, Table

from lowtide.store.schema.columns import WORD, Instant, Json
from lowtide.store.schema.tables import metadata

workers = Table(
    "workers",
    metadata,
    Column("id", WORD, primary_key=True),
    Column("heartbeat", BigInteger, nullable=False),
    Column("ttl_ms", BigInteger, nullable=False),
    Column("wants", Json(tuple[str, ...]), nullable=False),  # names of replicas
    Column("seen_at", Instant, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("name", WORD, primary_key=True),
    Column("worker_id", WORD),
    Column("token", BigInteger, nullable=False),
    Column("claimed_at", Instant),
)
