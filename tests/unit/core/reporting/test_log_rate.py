"""One line a second for many events, and each event in one line."""

from lowtide import limits
from lowtide.core.reporting.log_rate import LogRate


def test_the_first_is_told_at_once_and_the_others_once_a_second_with_their_number() -> None:
    rate = LogRate()
    step = limits.REFUSAL_LOG_S / 100
    reported = [count for tick in range(401) if (count := rate.due(7.0 + tick * step))]
    assert reported[0] == 1
    assert 4 <= len(reported) <= 5
    assert sum(reported) + rate.due(1e6) == 402
