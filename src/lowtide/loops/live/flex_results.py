"""Delivers finished flex results to the HTTP requests that wait for them.

Woken when a commit settled a batch, here or, over PostgreSQL's NOTIFY, in another process; polls
while calls wait, because a commit that settles a part of a batch sends no wake-up.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from lowtide import limits


class FlexResultsLoop:
    """Runs in every process that has an HTTP API."""

    name = "flex-results"

    def __init__(self, deliver: Callable[[], Awaitable[bool]]) -> None:
        """`deliver` delivers the results that are there. It returns whether calls still wait."""
        self._deliver = deliver

    async def tick(self, now: datetime) -> datetime | None:
        return now + timedelta(seconds=limits.FLEX_POLL_S) if await self._deliver() else None
