"""The live traffic of one replica: how much there is, whether it waits, and what it usually takes.

Some of it comes through Lowtide's own HTTP API and is seen call by call; some goes straight to the
engine, and is what the engine counts beyond Lowtide's calls. Asked by core/capacity/window.py,
which makes room for it. Pure.
"""

import math

from lowtide import limits
from lowtide.core.capacity.engine_metrics import EngineMetrics, LiveSeen
from lowtide.core.capacity.output_lengths import BUCKETS, bucket_of


class LiveTraffic:
    """Estimates the live load of one replica; call `see` with every metrics poll."""

    def __init__(self) -> None:
        self.calls = 0.0
        """Live calls at the engine, by whichever way they came."""
        self.waiting = 0.0
        """Those of them that wait to begin, as far as the engine's own numbers tell."""
        self.load = 0.0
        """The share of the engine that they take, from 0 to 1."""
        self._external = 0.0
        self._seen_at_s = float("-inf")
        self._usual_share = UsualPeak()
        self._usual_calls = UsualPeak()

    def see(self, metrics: EngineMetrics, own: int, live: LiveSeen, now_s: float) -> None:
        """Records a poll, at which `own` batch calls were in flight.

        External calls are those that neither the batch side nor the HTTP API sent. One poll alone
        may have seen Lowtide's own calls come or go, so they count once two polls agree.
        """
        waiting = metrics.waiting or 0
        external = max(0.0, float((metrics.running or 0) + waiting - own))
        confirmed, self._external = min(self._external, external), external
        self.calls = max(float(live.in_flight), confirmed)
        share = self.calls / (own + self.calls) if self.calls else 0.0
        self.waiting = waiting * share  # nobody says whose the waiting calls are
        of_seats = self.calls / metrics.seats_max if metrics.seats_max else None
        of_kv = share * metrics.kv_used if metrics.kv_used is not None else None
        shares = [part for part in (of_seats, of_kv) if part is not None]
        self.load = min(1.0, max(shares, default=share))
        if self.calls:
            self._seen_at_s = now_s
        if self.was_ever:
            self._usual_share.see(of_kv or 0.0, now_s)
            self._usual_calls.see(self.calls, now_s)

    def see_silent(self, own: int, live: LiveSeen, now_s: float) -> None:
        """Records a poll without metrics; what remains is the HTTP API's own view."""
        self._external = self.waiting = 0.0
        self.calls = float(live.in_flight)
        self.load = live.in_flight / (live.in_flight + own) if live.in_flight else 0.0
        if self.calls:
            self._seen_at_s = now_s

    @property
    def was_ever(self) -> bool:
        return self._seen_at_s > float("-inf")

    def is_recent(self, now_s: float) -> bool:
        return now_s - self._seen_at_s <= limits.LIVE_RECENT_S

    @property
    def kv_reserve(self) -> float:
        """The share of KV to keep free for it (h_rt); 0 where there never was any."""
        if not self.was_ever:
            return 0.0
        return min(limits.LIVE_SHARE_MAX, max(limits.LIVE_SHARE_MIN, self._usual_share.value))

    def seat_reserve(self, seats: int) -> float:
        """How many of `seats` concurrent calls to keep free for live traffic;
        0 if there never was any.
        """
        if not self.was_ever:
            return 0.0
        least = min(limits.LIVE_SEATS_MIN, max(1, seats // 8))
        return max(float(least), 1.5 * self._usual_calls.value)


class UsualPeak:
    """The size that something passes one time in twenty, as of the last hour.

    Quarter-octave buckets from 0 to 88 whose weights fade over LIVE_MEMORY_S; more counts as 88.
    """

    _SCALE = 10_000.0  # so that shares are told apart from a ten-thousandth on

    def __init__(self) -> None:
        self._weights = [0.0] * BUCKETS
        self._total = 0.0
        self._seen_at_s: float | None = None

    def see(self, value: float, now_s: float) -> None:
        """One more reading; they are about evenly spaced in time."""
        if self._seen_at_s is not None:
            fade = math.exp(-max(0.0, now_s - self._seen_at_s) / limits.LIVE_MEMORY_S)
            self._weights = [fade * weight for weight in self._weights]
            self._total *= fade
        self._seen_at_s = now_s
        self._weights[bucket_of(self._SCALE * value)] += 1.0
        self._total += 1.0

    @property
    def value(self) -> float:
        """The upper end of the bucket that the percentile lies in; 0 when nothing was seen."""
        above = 0.0
        for index in range(BUCKETS - 1, 0, -1):
            above += self._weights[index]
            if above > limits.LIVE_USUAL_SHARE * self._total:
                return float(2.0 ** ((index + 1) / 4)) / self._SCALE
        return 0.0
