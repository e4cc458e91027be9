"""Looks for the results that held calls wait for.

Woken when a commit settled a batch, here or, over PostgreSQL's NOTIFY, in another process; polls
while anybody waits, because a commit that settles a part of a batch wakes nobody.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from lowtide import limits


class FlexResultsLoop:
    """Runs in every process that has an HTTP API."""

    name = "flex-results"

    def __init__(self, look: Callable[[], Awaitable[bool]]) -> None:
        """`look` hands out what is there, and says whether anybody waits still."""
        self._look = look

    async def tick(self, now: datetime) -> datetime | None:
        return now + timedelta(seconds=limits.FLEX_LOOK_S) if await self._look() else None
