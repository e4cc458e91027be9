"""Real time and real chance: the clock and the ids of a running process (ports/clock.py)."""

import asyncio
import secrets
import time
from datetime import UTC, datetime


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


def new_id(prefix: str) -> str:
    """`prefix` and 24 hexadecimal digits from the system's generator."""
    return prefix + secrets.token_hex(12)
