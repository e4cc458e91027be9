"""Rate limits of live calls that hold for several processes together.

loops/live/shared_rates.py reports to the store and brings the answers; a call meets nothing but
memory. Pure: monotonic seconds go in. Invariants: where this is the only process, calls are let
through exactly as by `RateLimiter`; whatever was used is reported once, and what is not sure to
have been reported is never given back.
"""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from lowtide.core.accounts.rate_limit import (
    MINUTE_S,
    Allowance,
    Bucket,
    Kind,
    LimitStatus,
    Pair,
    PoolName,
    RateDecision,
    RateLimiter,
)
from lowtide.core.accounts.shared_pool import (
    KINDS,
    Exchange,
    Need,
    Pool,
    PoolReport,
    filled,
    first_part,
)
from lowtide.limits import LIVE_BUCKETS_MAX, LIVE_SHARE_ASKED_S, LIVE_SHARE_S

_EVEN: Final = 1e-6
"""A part of a request or token: sums of fractions differ by less."""


class SharedBucket(Bucket):
    """This process's part of a pool, and what it knows of the rest.

    `_credit` is the part of the level that the pool does not know of yet: what a process may use
    before it has taken anything, and its part of what fills between two reports.
    """

    __slots__ = (
        "_asked",
        "_beyond",
        "_credit",
        "_largest",
        "_largest_until_s",
        "_processes",
        "_reported",
        "_returned",
    )

    def __init__(self, capacity: int, now_s: float, left: float, processes: int) -> None:
        """`left`: in the pool, as far as is known here."""
        super().__init__(capacity, now_s)
        self._processes = processes
        self._level = self._credit = first_part(left, processes)
        self._beyond = left - self._level
        self._asked = self._largest = 0.0
        self._largest_until_s = now_s
        self._reported: tuple[float, float] | None = None
        self._returned = 0.0

    def level(self, now_s: float) -> float:
        """What may be taken now: what the process holds, with its part of what fills."""
        passed_s = now_s - self._seen_at_s
        if passed_s <= 0:  # a call asks several times at one instant
            return self._level
        self._seen_at_s = now_s
        fills = self.capacity * passed_s / MINUTE_S
        bound = max(self._level, self.capacity / self._processes)
        level = min(bound, self._level + fills / self._processes)
        self._credit += level - self._level
        self._level = level
        if self._processes > 1:
            others = 1 - 1 / self._processes
            self._beyond = min(self.capacity - level, self._beyond + fills * others)
        return level

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` may be taken: at the next report, if the pool has it."""
        if self._processes == 1:
            return super().wait_s(amount, now_s)
        missing = amount - self.level(now_s)
        if missing <= 0:
            return 0.0
        missing -= self._beyond
        fills_s = missing * MINUTE_S / self.capacity if self.capacity else MINUTE_S
        return max(LIVE_SHARE_S, fills_s)

    def shown(self, now_s: float) -> LimitStatus:
        """The status of the whole pool, as far as is known here."""
        if self._processes == 1:
            return super().shown(now_s)
        level = min(float(self.capacity), self.level(now_s) + self._beyond)
        missing = self.capacity - level
        reset_s = missing * MINUTE_S / self.capacity if self.capacity else MINUTE_S
        return LimitStatus(self.capacity, max(0, int(level)), reset_s)

    def shown_here(self, status: LimitStatus, now_s: float) -> LimitStatus:
        """The same for a call that is refused: what this process may still let through."""
        return msgspec.structs.replace(status, remaining=max(0, int(self.level(now_s))))

    def note(self, amount: float, now_s: float, again_s: float) -> None:
        """Notes what a call asked for. `again_s`: when it may come again; 0: it was let through."""
        self._asked += amount
        if amount >= self._largest or now_s > self._largest_until_s:
            self._largest = amount
        if again_s:
            until_s = now_s + again_s + LIVE_SHARE_ASKED_S
            self._largest_until_s = max(self._largest_until_s, until_s)

    def report(self, now_s: float) -> Need:
        """What the pool is to be told; `settled` or `is_unsure` follows."""
        level = self.level(now_s)
        self._reported = (level, self._credit)
        self._returned = level - self._credit
        alone = level if self._processes == 1 else None
        need = Need(self.capacity, self._returned, self._asked, self._largest, alone)
        self._asked = 0.0
        if now_s >= self._largest_until_s:
            self._largest = 0.0
        return need

    def settled(self, taken: float, left: float, processes: int, now_s: float) -> None:
        """Begins anew with what was taken, less what was used since the report."""
        level = self.level(now_s)
        if self._reported is None:  # made since: the report spoke of another one
            return
        level_before, credit_before = self._reported
        self._reported = None
        self._level = taken + level - level_before
        self._credit -= credit_before
        self._beyond = left
        self._processes = processes

    def is_unsure(self) -> None:
        """The report may have arrived, or not: what it gave back is not given back again."""
        self._credit += max(0.0, self._returned)
        self._returned, self._reported = 0.0, None

    @property
    def is_idle(self) -> bool:
        """Whether nothing was asked since the report, nothing is expected, and the pool knows
        of all that was used.
        """
        is_even = abs(self._level - self._credit) < _EVEN
        return is_even and not self._asked and not self._largest


class SharedRateLimiter(RateLimiter):
    """The rate limiter of one process among several."""

    def __init__(self, buckets_max: int = LIVE_BUCKETS_MAX) -> None:
        super().__init__(buckets_max)
        self._processes = 1
        self._seen: OrderedDict[PoolName, tuple[float, Pool]] = OrderedDict()

    def admit(
        self, key_id: str, model: str, allowance: Allowance, tokens: int, now_s: float
    ) -> RateDecision:
        decision = super().admit(key_id, model, allowance, tokens, now_s)
        pair = None if allowance.is_unlimited else self._pairs[key_id, model]
        if pair is None:
            return decision
        again_s = decision.retry_after_s
        requests, of_tokens = decision.requests, decision.tokens
        if isinstance(pair.requests, SharedBucket) and requests is not None:
            pair.requests.note(1.0, now_s, again_s)
            if again_s and self._processes > 1:
                requests = pair.requests.shown_here(requests, now_s)
        if isinstance(pair.tokens, SharedBucket) and of_tokens is not None:
            pair.tokens.note(float(min(tokens, of_tokens.limit)), now_s, again_s)
            if again_s and self._processes > 1:
                of_tokens = pair.tokens.shown_here(of_tokens, now_s)
        if requests is decision.requests and of_tokens is decision.tokens:
            return decision
        return msgspec.structs.replace(decision, requests=requests, tokens=of_tokens)

    def correct(
        self, key_id: str, model: str, verdict: RateDecision, used: int, now_s: float
    ) -> None:
        name = (key_id, model)
        if verdict.tokens is not None and name not in self._pairs:
            # The pool was given back while the call ran: nothing may be used here but what it
            # reserved in vain.
            pair = self._pairs[name] = Pair()
            bucket = SharedBucket(verdict.tokens.limit, now_s, 0.0, self._processes)
            pair.tokens = bucket
        super().correct(key_id, model, verdict, used, now_s)

    def reports(self, now_s: float) -> list[PoolReport]:
        """What the store is to be told of each pool in use; `settle` or `are_unsure` follows."""
        return [
            PoolReport(name, _need(pair.requests, now_s), _need(pair.tokens, now_s))
            for name, pair in self._pairs.items()
        ]

    def settle(self, exchanged: Exchange, asked_at: datetime, asked_s: float, now_s: float) -> None:
        """Takes over the answer to `reports`, or, with nothing taken, what others did.

        It was asked at `asked_at` by the clock that dates pools, `asked_s` by the other one.
        """
        self._processes = exchanged.processes
        for name, pool in exchanged.changed.items():
            age_s = max(0.0, (asked_at - pool.at).total_seconds())
            self._seen[name] = (asked_s - age_s, pool)
            self._seen.move_to_end(name)
        while len(self._seen) > self._buckets_max:
            self._seen.popitem(last=False)
        for name, taken in exchanged.taken.items():
            pair = self._pairs.get(name)
            if pair is not None and not self._settle(pair, exchanged.changed[name], taken, now_s):
                del self._pairs[name]

    def are_unsure(self) -> None:
        """Whether the reports arrived is not known."""
        for pair in self._pairs.values():
            for bucket in (pair.requests, pair.tokens):
                if isinstance(bucket, SharedBucket):
                    bucket.is_unsure()

    def _settle(self, pair: Pair, pool: Pool, taken: Mapping[Kind, float], now_s: float) -> bool:
        """Whether the pair is still in use."""
        is_used = False
        for kind in KINDS:
            bucket: Bucket | None = getattr(pair, kind)
            left = pool.left(kind)
            if isinstance(bucket, SharedBucket) and kind in taken and left is not None:
                bucket.settled(taken[kind], left, self._processes, now_s)
                is_used = is_used or not bucket.is_idle
        return is_used

    def _known_pair(self, name: PoolName) -> Pair | None:
        pair = self._pairs.get(name)
        return Pair() if pair is None and name in self._seen else pair

    def _bucket(self, name: PoolName, kind: Kind, limit: int, now_s: float) -> Bucket:
        at_s, pool = self._seen.get(name, (now_s, None))
        left = None if pool is None else pool.left(kind)
        level = float(limit) if left is None else filled(left, limit, now_s - at_s)
        return SharedBucket(limit, now_s, level, self._processes)


def _need(bucket: Bucket | None, now_s: float) -> Need | None:
    return bucket.report(now_s) if isinstance(bucket, SharedBucket) else None
