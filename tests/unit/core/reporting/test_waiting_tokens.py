"""What a batch is told that waits for enqueued tokens."""

from datetime import UTC, datetime

import pytest

from lowtide.core.accounts.token_queue import TokenLimitReached, TokenWait
from lowtide.core.reporting.progress import progress_of
from lowtide.core.reporting.waiting import Queue
from testkit.batches import a_batch

NOW = datetime(2026, 11, 21, tzinfo=UTC)
LACK = TokenLimitReached("m", 1000, 900, 300)


@pytest.mark.parametrize(
    ("wait", "begins", "ends"),
    [
        (TokenWait(1, LACK), "Waits for enqueued tokens of m: 900", "requests finish."),
        (TokenWait(3, LACK), "Waits for enqueued tokens of m: 900", "requests finish."),
        (TokenWait(2, None), "Waits for enqueued tokens behind other", "requests finish."),
        (TokenWait(1, None), "There is room for its tokens now", "in a moment."),
    ],
)
def test_a_batch_that_waits_for_tokens_says_for_which_and_its_place(
    wait: TokenWait, begins: str, ends: str
) -> None:
    batch = a_batch(NOW, window_s=3600, queued_at=NOW)
    reported = progress_of(batch, NOW, queue=Queue(tokens=wait))
    assert reported.reason is not None
    assert reported.reason.startswith(begins) and reported.reason.endswith(ends)
    assert (f"number {wait.place}" in reported.reason) == (wait.place > 1)
    assert (reported.stage, reported.queue_position) == ("queuing", wait.place)
