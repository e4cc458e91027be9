"""How long an engine asks its client to wait, read from its reply headers.

Called once for each reply that carries one of the two headers. Whatever the engine wrote, the
result is None or a finite number between 0 and `RETRY_AFTER_S_MAX`: a mistake on the other side may
not stop a caller for a year.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from lowtide.limits import RETRY_AFTER_S_MAX

_NUMBER = re.compile(rb"\d{1,15}(\.\d{1,9})?")


def retry_after_s(
    header: bytes | None, header_ms: bytes | None, utc_now: Callable[[], datetime]
) -> float | None:
    """Seconds to wait, from `Retry-After` or `retry-after-ms`; None without a readable one.

    `Retry-After` holds seconds or an HTTP date (RFC 9110 10.2.3). `retry-after-ms` (OpenAI and
    Azure send it) wins where both are readable, being the finer one.
    """
    if header_ms is not None and _NUMBER.fullmatch(header_ms.strip()):
        return _bounded(float(header_ms) / 1000)
    if header is None:
        return None
    if _NUMBER.fullmatch(header.strip()):
        return _bounded(float(header))
    return _until_date(header, utc_now)


def _until_date(header: bytes, utc_now: Callable[[], datetime]) -> float | None:
    try:
        date = parsedate_to_datetime(header.decode("ascii"))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None  # the standard parser lets each of these through for some rubbish
    if date.tzinfo is None:  # "-0000": UTC, origin unknown (RFC 5322 3.3)
        date = date.replace(tzinfo=UTC)
    return _bounded((date - utc_now()).total_seconds())


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX)
