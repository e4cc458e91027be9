"""The tables of retries and failures: sets of an input's lines, and groups of alike failures.

They belong to the schema of tables.py and share its rules. A set of lines is one row, as packed by
`core.batches.line_sets`; it is written with the event that ends the batch, or with its insertion.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, Table

from lowtide.core.batches.failures import FailureExample
from lowtide.store.schema.columns import WORD, Json
from lowtide.store.schema.tables import batches, metadata

line_sets: Final = Table(
    "line_sets",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    Column("kind", WORD, primary_key=True),  # a LineSetKind of ports/retries.py
    Column("data", LargeBinary, nullable=False),
)

failure_groups: Final = Table(
    "failure_groups",
    metadata,
    Column("batch_id", WORD, ForeignKey(batches.c.id), primary_key=True),
    Column("code", WORD, primary_key=True),
    Column("shape", WORD, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("examples", Json(tuple[FailureExample, ...]), nullable=False),
)
