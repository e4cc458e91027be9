"""The tables of scheduling: whose turn it is, which batches go first, what pools get done.

They belong to the schema of tables.py and share its rules. None of them is needed to know what a
batch is or owes: losing a row costs fairness or a forecast, never a result.
"""

from typing import Final

from sqlalchemy import Column, Float, Integer, Table

from lowtide.store.schema.columns import WORD, at
from lowtide.store.schema.tables import metadata


def _number(name: str) -> Column[float]:
    return Column(name, Float, nullable=False)


virtual_times: Final = Table(
    "virtual_times",
    metadata,
    Column("model", WORD, primary_key=True),
    Column("organization_id", WORD, primary_key=True),
    _number("virtual_time"),  # work units given, over the weight
)

urgent_batches: Final = Table(
    "urgent_batches",
    metadata,
    Column("model", WORD, primary_key=True),
    Column("batch_id", WORD, primary_key=True),
    Column("position", Integer, nullable=False),  # 0 goes first
)

throughputs: Final = Table(
    "throughputs",
    metadata,
    Column("model", WORD, primary_key=True),
    at("at", nullable=False),
    _number("work"),  # this and what follows: see core.scheduling.forecast.Throughput
    _number("seconds"),
    _number("requests"),
    _number("output_tokens"),
    at("hour_at", nullable=False),
    _number("hour_work"),
    _number("hour_seconds"),
)

forecast_hours: Final = Table(
    "forecast_hours",
    metadata,
    Column("model", WORD, primary_key=True),
    Column("hour_of_week", Integer, primary_key=True, autoincrement=False),
    _number("p20"),
    _number("p50"),
    Column("weeks", Integer, nullable=False),
)
