"""What the demo's server has learned of each hour of the week, as if it had run for eight weeks.

Without it a batch has one expected end; with it there is a second one, for a slow week, and the
page of the week is full. Written between the servers of the past and that of today.
"""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import insert

from lowtide.core.scheduling.forecast import CELLS, HourOfWeek
from lowtide.store.connection.database import Database
from lowtide.store.schema.schedule_tables import forecast_hours
from testkit.demo.requests import LARGE, SMALL

WEEKS: Final = 8
_SHARES: Final = (0.1, 0.4, 1.0, 1.1, 1.2)
"""What batches got of a day, one week or another: on some, live calls took most of it."""
_RATES: Final = ((LARGE, 4000.0), (SMALL, 2700.0))
"""Work units a second of each model's engines without live calls."""
_BUSY: Final = range(7, 19)
"""Hours of the day in UTC in which live calls take most of the engines, except at weekends."""


def learn_weeks(database: Path) -> None:
    """Fills the forecast of a server that is not running."""
    chance = random.Random(11)
    days = [[chance.choice(_SHARES) for _ in range(WEEKS - 1)] for _ in range(7)]
    rows = [
        {"model": model, "hour_of_week": cell, "p20": its.p20, "p50": its.p50, "weeks": its.weeks}
        for model, rate in _RATES
        for cell in range(CELLS)
        for its in [_learned(rate * _share(cell), days[cell // 24])]
    ]
    asyncio.run(_write(database, rows))


def _share(cell: int) -> float:
    """The share of the engines that batches get in that hour, in a usual week."""
    day, hour = divmod(cell, 24)
    return 0.45 if day < 5 and hour in _BUSY else 1.0


def _learned(rate: float, shares: Sequence[float]) -> HourOfWeek:
    """The cell after a usual week, and those in which batches got such shares of it."""
    its = HourOfWeek(rate, rate, 1)
    for share in shares:
        its = its.learned(rate * share)
    return its


async def _write(database: Path, rows: list[dict[str, object]]) -> None:
    opened = Database(f"sqlite+aiosqlite:///{database}")
    try:
        async with opened.write() as conn:
            await conn.execute(insert(forecast_hours), rows)
    finally:
        await opened.aclose()
