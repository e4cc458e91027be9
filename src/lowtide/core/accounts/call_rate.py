"""How many calls an owner may make in a minute: a token bucket for each.

service/accounts/quotas.py asks before each call that is not interactive. Pure: monotonic seconds go
in. Guards: over any span of t seconds an owner gets no more than its limit's share of t, and one
minute's worth on top; what a call costs beyond one is known only at its end, and is owed then.
"""

from collections import OrderedDict

from lowtide.core.accounts.rate_limit import Bucket, LimitStatus
from lowtide.limits import CONTROL_BUCKETS_MAX


class CallRateLimiter:
    """Buckets of owners; the one that has not called for the longest is forgotten first."""

    def __init__(self, buckets_max: int = CONTROL_BUCKETS_MAX) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._buckets_max = buckets_max

    def take(self, owner: str, per_minute: int, now_s: float) -> float:
        """Seconds until the owner may call; 0: now, and the call is counted."""
        bucket = self._buckets.get(owner)
        if bucket is None:
            bucket = self._buckets[owner] = Bucket(per_minute, now_s)
            if len(self._buckets) > self._buckets_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(owner)
            bucket.resize(per_minute, now_s)
        wait_s = bucket.wait_s(1, now_s)
        if wait_s == 0:
            bucket.take(1, now_s)
        return wait_s

    def status(self, owner: str, per_minute: int, now_s: float) -> LimitStatus:
        """What is left to the owner; nothing is counted."""
        bucket = self._buckets.get(owner)
        if bucket is None:
            return LimitStatus(per_minute, per_minute, 0.0)
        bucket.resize(per_minute, now_s)
        return bucket.shown(now_s)

    def owe(self, owner: str, calls: float, now_s: float) -> None:
        """Charges so many more `calls` for a call that was let through."""
        bucket = self._buckets.get(owner)
        if bucket is not None:
            bucket.take(calls, now_s)
