"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta


class SkippingClock:
    def __init__(self) -> None:
        self._now = datetime(2026, 11, 21, 1, 4, 35, 123456, UTC)

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._now.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> datetime:
        self._now += timedelta(seconds=seconds)
        return self._now
