"""What follows from an attempt to deliver an event: delivered, tried again later, or given up.

Pure. The store asks in the transaction that records an attempt. Invariant: a delivery is tried at
most once more than `WEBHOOK_RETRIES_S` has entries.
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.webhooks.endpoint import DeliveryState

_GONE: Final = 410
"""The status that says, by the Standard Webhooks specification: send no event any more."""


class Attempt(msgspec.Struct, frozen=True):
    """What an attempt came to. `status_code` None: no answer; `error` then says why."""

    status_code: int | None = None
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300

    @property
    def failure(self) -> str | None:
        """Why it failed, for a person; None where it succeeded."""
        if self.succeeded:
            return None
        if self.status_code is None:
            return self.error or "no answer"
        if 300 <= self.status_code < 400:
            return f"answered {self.status_code}; redirects are not followed"
        return f"answered {self.status_code}"


class AfterAttempt(msgspec.Struct, frozen=True):
    """The delivery's state, and when it is tried next, where it is still pending."""

    state: DeliveryState
    next_at: datetime | None = None


def after_attempt(attempt: Attempt, attempts: int, now: datetime) -> AfterAttempt:
    """What becomes of a delivery after its attempt number `attempts`, which counts from 1."""
    if attempt.succeeded:
        return AfterAttempt("delivered")
    if attempts > len(limits.WEBHOOK_RETRIES_S):
        return AfterAttempt("failed")
    wait_s = limits.WEBHOOK_RETRIES_S[attempts - 1]
    return AfterAttempt("pending", now + timedelta(seconds=wait_s))


def reason_to_disable(
    attempt: Attempt, failing_since: datetime | None, now: datetime
) -> str | None:
    """Why an endpoint is called no more, for a person; None where it is.

    `failing_since`: its first failed attempt since one succeeded, this one included.
    """
    if attempt.succeeded:
        return None
    if attempt.status_code == _GONE:
        return "It answered 410 Gone."
    days = limits.WEBHOOK_FAILING_S_MAX // 86_400
    if failing_since is not None:
        failing_s = (now - failing_since).total_seconds()
        if failing_s >= limits.WEBHOOK_FAILING_S_MAX:
            return f"No delivery succeeded for {days} days; the last attempt: {attempt.failure}."
    return None
