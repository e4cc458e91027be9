"""How live answers word a caller's limits."""

import pytest

from lowtide.api.live.live import duration, rate_headers
from lowtide.core.accounts.rate_limit import LimitStatus, RateDecision


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (60.0, "1m0s"),
        (366.25, "6m6.25s"),
    ],
)
def test_a_time_is_written_as_clients_read_it_and_never_too_short(
    seconds: float, text: str
) -> None:
    assert duration(seconds) == text


def test_only_limits_that_exist_are_told() -> None:
    assert rate_headers(RateDecision(True, 0, 0.0, None, None)) == {}
    assert rate_headers(RateDecision(True, 0, 0.0, LimitStatus(60, 59, 1.0), None)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
    }
