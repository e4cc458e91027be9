"""The loop that lets paused batches go on."""

from datetime import UTC, datetime, timedelta

from lowtide import limits
from lowtide.loops.batches.unpause import UnpauseLoop

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class Ledger:
    def __init__(self) -> None:
        self.paused: list[str] = []

    async def unpause(self, now: datetime) -> list[str]:
        assert now == NOW
        going_on, self.paused = self.paused, []
        return going_on


async def test_work_is_looked_for_only_when_a_batch_goes_on() -> None:
    ledger, woken = Ledger(), list[str]()
    loop = UnpauseLoop(ledger, woken.append)  # type: ignore[arg-type]
    assert await loop.tick(NOW) == NOW + timedelta(seconds=limits.BUDGET_POLL_S)
    assert woken == []
    ledger.paused = ["batch_1"]
    await loop.tick(NOW)
    assert woken == ["dispatch"]
