"""The tables of history: rates and notes of batches.

They belong to the schema of tables.py and share its rules. A batch has one row of rates, which is
replaced as a whole, and a row for each note.
"""

from typing import Final

from sqlalchemy import Column, ForeignKey, Index, Table

from lowtide.core.history.batch_history import BatchHistory
from lowtide.store.schema.columns import WORD, Instant, Json
from lowtide.store.schema.tables import batches, metadata

batch_history: Final = Table(
    "batch_history",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    Column("looked_at", Instant, nullable=False),
    Column("history", Json(BatchHistory), nullable=False),
)
Index("batch_history_age", batch_history.c.looked_at)

batch_notes: Final = Table(
    "batch_notes",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    Column("at", Instant, primary_key=True),
    Column("kind", WORD, primary_key=True),
    Column("actor", WORD, nullable=False),
    Column("detail", WORD, nullable=False),
)
Index("batch_notes_age", batch_notes.c.at)
