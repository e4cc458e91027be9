"""How often a caller may call: token buckets, one pair per API key and model.

The live API asks before each call and corrects afterwards. Pure: monotonic seconds go in.
It guards the promise that over any span of t seconds no more than the limit's share of t, and one
minute's worth on top, is let through. Nothing of batch work comes here: the pools are separate.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import Final, Literal

import msgspec

from lowtide.limits import LIVE_BUCKETS_MAX, LIVE_DEBT_MINUTES_MAX

MINUTE_S: Final = 60.0


class Allowance(msgspec.Struct, frozen=True):
    """What a caller may do per minute; None: as much as they like."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def is_unlimited(self) -> bool:
        return self.requests_per_minute is None and self.tokens_per_minute is None


class LimitStatus(msgspec.Struct, frozen=True):
    """One limit as its caller is told: what is left, and in how many seconds all of it is back."""

    limit: int
    remaining: int
    reset_s: float


class RateUse(msgspec.Struct, frozen=True):
    """What a caller has left for one model; None: without that limit."""

    requests: LimitStatus | None
    tokens: LimitStatus | None


class RateDecision(msgspec.Struct, frozen=True):
    """Whether a call may go ahead. `retry_after_s` is 0 for one that may."""

    admitted: bool
    reserved_tokens: int
    retry_after_s: float
    requests: LimitStatus | None
    tokens: LimitStatus | None


class Bucket:
    """Holds at most a minute's worth and fills evenly. Below zero it is in debt."""

    __slots__ = ("_level", "_seen_at_s", "capacity")

    def __init__(self, capacity: int, now_s: float) -> None:
        self.capacity = capacity
        self._level = float(capacity)
        self._seen_at_s = now_s

    def level(self, now_s: float) -> float:
        """The amount that may be taken now."""
        passed_s = now_s - self._seen_at_s
        if passed_s <= 0:  # a call asks several times at one instant
            return self._level
        self._seen_at_s = now_s
        filled = self._level + self.capacity * passed_s / MINUTE_S
        self._level = min(float(self.capacity), filled)
        return self._level

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` may be taken; 0 when it may be now."""
        missing = amount - self.level(now_s)
        if missing <= 0:
            return 0.0
        return missing * MINUTE_S / self.capacity if self.capacity else MINUTE_S

    def take(self, amount: float, now_s: float) -> None:
        """Takes, or gives back what is below zero. Debt ends at LIVE_DEBT_MINUTES_MAX."""
        level = min(float(self.capacity), self.level(now_s) - amount)
        self._level = max(level, -float(self.capacity) * LIVE_DEBT_MINUTES_MAX)

    def resize(self, capacity: int, now_s: float) -> None:
        """Changes the limit of the bucket."""
        if capacity != self.capacity:
            level = self.level(now_s)
            self.capacity = capacity
            self._level = min(float(capacity), level)

    def shown(self, now_s: float) -> LimitStatus:
        return LimitStatus(
            self.capacity,
            max(0, int(self.level(now_s))),
            self.wait_s(self.capacity, now_s),
        )


PoolName = tuple[str, str]
"""A key's id and a model."""

Kind = Literal["requests", "tokens"]


class Pair:
    """The two buckets of one key and model; one that has no limit is None."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None


class RateLimiter:
    """The buckets in use, least recently used first; at most `buckets_max` pairs are kept.

    One that is forgotten begins full again, so the bound must be above the keys that are busy
    within the same minute.
    """

    def __init__(self, buckets_max: int = LIVE_BUCKETS_MAX) -> None:
        self._buckets_max = buckets_max
        self._pairs: OrderedDict[PoolName, Pair] = OrderedDict()
        self._unread: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def may_read(
        self, key_id: str, models: Collection[str], allowance: Allowance, now_s: float
    ) -> RateDecision | None:
        """Whether one more call, whose body and so whose model is not known yet, may go ahead.

        None: yes, and it is counted until `has_read`. A verdict: no model has a request left for
        it, beside those of the key that are being read; it is that of the model which has one
        again first.
        """
        limit = allowance.requests_per_minute
        if limit is None:
            return None
        unread = self._unread.get(key_id, 0)
        free = 0.0
        for model in models:
            pair = self._pairs.get((key_id, model))
            bucket = None if pair is None else pair.requests
            free += limit if bucket is None else max(0.0, bucket.level(now_s) // 1)
            if free > unread:
                self._unread[key_id] = unread + 1
                return None
        return self._soonest(key_id, models, allowance, now_s)

    def use(
        self, key_id: str, models: Collection[str], allowance: Allowance, now_s: float
    ) -> dict[str, RateUse]:
        """What the key has left of those models that it called lately; nothing is counted."""
        uses: dict[str, RateUse] = {}
        for model in models:
            pair = self._known_pair((key_id, model))
            if pair is None:
                continue
            self._fit((key_id, model), pair, allowance, now_s)
            uses[model] = RateUse(
                pair.requests.shown(now_s) if pair.requests else None,
                pair.tokens.shown(now_s) if pair.tokens else None,
            )
        return uses

    def has_read(self, key_id: str) -> None:
        """Ends what `may_read` counted: the call's body was read, or never will be."""
        unread = self._unread.get(key_id, 0)
        if unread > 1:
            self._unread[key_id] = unread - 1
        else:
            self._unread.pop(key_id, None)

    def _soonest(
        self, key_id: str, models: Collection[str], allowance: Allowance, now_s: float
    ) -> RateDecision:
        pairs = [self._fitted_pair((key_id, model), allowance, now_s) for model in models]
        waits = [pair.requests.wait_s(1, now_s) for pair in pairs if pair.requests is not None]
        wait_s = min(waits, default=0.0)
        pair = pairs[waits.index(wait_s)] if waits else Pair()
        return RateDecision(
            admitted=False,
            reserved_tokens=0,
            retry_after_s=wait_s or MINUTE_S / (allowance.requests_per_minute or 1),
            requests=pair.requests.shown(now_s) if pair.requests else None,
            tokens=pair.tokens.shown(now_s) if pair.tokens else None,
        )

    def admit(
        self, key_id: str, model: str, allowance: Allowance, tokens: int, now_s: float
    ) -> RateDecision:
        """Takes one request and the `tokens` it may need, both or neither.

        A call that could need more than a minute's worth waits for a full bucket, not for ever;
        what it really used is then owed.
        """
        if allowance.is_unlimited:
            return RateDecision(True, 0, 0.0, None, None)
        pair = self._fitted_pair((key_id, model), allowance, now_s)
        reserved = 0 if pair.tokens is None else min(tokens, pair.tokens.capacity)
        takes = ((pair.requests, 1), (pair.tokens, reserved))
        wait_s = max(bucket.wait_s(amount, now_s) for bucket, amount in takes if bucket)
        if wait_s == 0:
            for bucket, amount in takes:
                if bucket is not None:
                    bucket.take(amount, now_s)
        return RateDecision(
            admitted=wait_s == 0,
            reserved_tokens=reserved if wait_s == 0 else 0,
            retry_after_s=wait_s,
            requests=pair.requests.shown(now_s) if pair.requests else None,
            tokens=pair.tokens.shown(now_s) if pair.tokens else None,
        )

    def correct(
        self, key_id: str, model: str, verdict: RateDecision, used: int, now_s: float
    ) -> None:
        """Corrects the charge of an admitted call that has ended, by the tokens that it used."""
        pair = self._pairs.get((key_id, model))
        if pair is not None and pair.tokens is not None and verdict.tokens is not None:
            pair.tokens.take(used - verdict.reserved_tokens, now_s)

    def _known_pair(self, name: PoolName) -> Pair | None:
        """The buckets of a pool that was used lately."""
        return self._pairs.get(name)

    def _fitted_pair(self, name: PoolName, allowance: Allowance, now_s: float) -> Pair:
        pair = self._pairs.get(name)
        if pair is None:
            pair = self._pairs[name] = Pair()
            if len(self._pairs) > self._buckets_max:
                self._pairs.popitem(last=False)
        else:
            self._pairs.move_to_end(name)
        self._fit(name, pair, allowance, now_s)
        return pair

    def _fit(self, name: PoolName, pair: Pair, allowance: Allowance, now_s: float) -> None:
        """Gives the pair the buckets of its limits of now."""
        pair.requests = self._fitted(
            pair.requests, name, "requests", allowance.requests_per_minute, now_s
        )
        pair.tokens = self._fitted(pair.tokens, name, "tokens", allowance.tokens_per_minute, now_s)

    def _fitted(
        self, bucket: Bucket | None, name: PoolName, kind: Kind, limit: int | None, now_s: float
    ) -> Bucket | None:
        if limit is None:
            return None
        if bucket is None:
            return self._bucket(name, kind, limit, now_s)
        bucket.resize(limit, now_s)
        return bucket

    def _bucket(
        self,
        name: PoolName,  # noqa: ARG002 - others, where a pool is shared
        kind: Kind,  # noqa: ARG002
        limit: int,
        now_s: float,
    ) -> Bucket:
        """The bucket of a pool that was not used lately."""
        return Bucket(limit, now_s)
