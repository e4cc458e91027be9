"""The loop that looks for results of held calls."""

from datetime import UTC, datetime, timedelta

from lowtide import limits
from lowtide.loops.live.flex_results import FlexResultsLoop

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def test_it_looks_again_while_anybody_waits_and_rests_otherwise() -> None:
    waiting = [True, False]

    async def deliver_results() -> bool:
        return waiting.pop(0)

    loop = FlexResultsLoop(deliver_results)
    assert await loop.tick(NOON) == NOON + timedelta(seconds=limits.FLEX_POLL_S)
    assert await loop.tick(NOON) is None
