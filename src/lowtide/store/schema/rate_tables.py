"""The tables of rate pools that processes share. They belong to the schema of tables.py.

A row of `live_pools` is what no process has taken at that instant; a pool without a row is full.
"""

from typing import Final

from sqlalchemy import Column, Double, Index, Table

from lowtide.store.schema.columns import WORD, Instant
from lowtide.store.schema.tables import metadata

live_processes: Final = Table(
    "live_processes",
    metadata,
    Column("id", WORD, primary_key=True),
    Column("seen_at", Instant, nullable=False),
)

live_pools: Final = Table(
    "live_pools",
    metadata,
    Column("key_id", WORD, primary_key=True),
    Column("model", WORD, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("requests", Double),
    Column("tokens", Double),
)
Index("live_pools_age", live_pools.c.at)
