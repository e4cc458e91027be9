"""The tables of history: rates and notes of batches, and what replicas did.

They belong to the schema of tables.py and share its rules. A batch has one row of rates, which is
replaced as a whole, and a row for each note; a replica has one for each bucket and process.
"""

from typing import Final

from sqlalchemy import Boolean, Column, ForeignKey, Index, Table

from lowtide.core.history.batch_history import BatchHistory
from lowtide.core.history.replica_history import ReplicaPart
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

replica_history: Final = Table(
    "replica_history",
    metadata,
    Column("replica", WORD, primary_key=True),
    Column("at", Instant, primary_key=True),
    Column("writer", WORD, primary_key=True),
    Column("gave_way", Boolean, nullable=False),
    Column("part", Json(ReplicaPart), nullable=False),
)
Index("replica_history_age", replica_history.c.at)
