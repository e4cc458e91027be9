"""Reading how long an engine asks us to wait."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.engines.http.retry_after import retry_after_s
from lowtide.limits import RETRY_AFTER_S_MAX


def now() -> datetime:
    return datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "header_ms", "expected"),
    [
        (None, None, None),
        (b"3", None, 3.0),
        (b" 1.5 ", None, 1.5),
        (b"0", None, 0.0),
        (None, b"250", 0.25),
        (b"3", b"1500", 1.5),
        (b"3", b"soon", 3.0),
        (b"soon", None, None),
        (b"", b"", None),
        (b"-1", None, None),
        (b"nan", None, None),
        (b"inf", b"1e9", None),
        (b"999999999", None, RETRY_AFTER_S_MAX),
        (b"Thu, 01 Jan 2026 12:00:30 GMT", None, 30.0),
        (b"Thu, 01 Jan 2026 12:00:30 -0000", None, 30.0),
        (b"Thu, 01 Jan 2026 14:00:30 +0200", None, 30.0),
        (b"Thu, 01 Jan 2026 11:59:00 GMT", None, 0.0),
        (b"Thu, 01 Jan 2099 00:00:00 GMT", None, RETRY_AFTER_S_MAX),
        (b"Thu, 99 Foo 2026 12:00:30 GMT", None, None),
        (b"\xff\xfe", b"\xff", None),
    ],
)
def test_the_wait_is_read_from_either_header(
    header: bytes | None, header_ms: bytes | None, expected: float | None
) -> None:
    assert retry_after_s(header, header_ms, now) == expected


@given(st.none() | st.binary(max_size=60), st.none() | st.binary(max_size=60))
def test_no_header_can_raise_or_ask_for_an_unbounded_wait(
    header: bytes | None, header_ms: bytes | None
) -> None:
    wait_s = retry_after_s(header, header_ms, now)
    assert wait_s is None or (math.isfinite(wait_s) and 0 <= wait_s <= RETRY_AFTER_S_MAX)


DATE_PARTS = st.sampled_from(
    ["Thu", ",", " ", "01", "Jan", "2026", "12:00:30", "GMT", "+9999", "-0000", "99999", ":", "0"]
)


@given(st.lists(DATE_PARTS, max_size=9).map(" ".join))
def test_no_near_date_can_raise(text: str) -> None:
    wait_s = retry_after_s(text.encode(), None, now)
    assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_S_MAX
