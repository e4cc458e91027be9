"""The table of idempotency keys. It belongs to the schema of tables.py, and shares its rules."""

from typing import Final

from sqlalchemy import Column, Index, Table

from lowtide.store.schema.columns import WORD, Instant
from lowtide.store.schema.tables import metadata

idempotency_keys: Final = Table(
    "idempotency_keys",
    metadata,
    Column("organization_id", WORD, primary_key=True),
    Column("key", WORD, primary_key=True),
    Column("kind", WORD, nullable=False),
    Column("digest", WORD, nullable=False),
    Column("made_id", WORD, nullable=False),  # of the batch or file
    Column("made_at", Instant, nullable=False),
)
Index("idempotency_keys_age", idempotency_keys.c.made_at)
