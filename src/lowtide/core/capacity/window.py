"""How many batch calls a replica should have in flight, and how fast prompts may follow each other.

Twice a second the control loop passes in the engine's metrics, the batch calls in flight and what
the live API sees; the result is `window`. Three ceilings hold: the operator's, the KV memory that
calls of the lengths seen will fill, and the seats that live traffic leaves. Below them the window
grows while it is used and is cut when the engine preempts, queues batch calls, or makes live
traffic wait or stutter. An engine that has reported nothing for more than STALE_POLLS polls is
taken to be failing: the window halves at each further poll and does not grow. The formulas and
numbers are those of scheduling.md sections 2(a) and 3. Pure: monotonic seconds in, decisions out.

Invariant: 0 <= window <= window_max; 0 only while the engine sleeps.
"""

from collections.abc import Sequence
from typing import Literal

from lowtide import limits
from lowtide.core.capacity.batch_stats import BatchStats
from lowtide.core.capacity.engine_metrics import (
    NO_LIVE,
    BatchCall,
    EngineMetrics,
    LiveSeen,
    MetricsDelta,
    metrics_delta,
)
from lowtide.core.capacity.live_traffic import LiveTraffic
from lowtide.core.capacity.prefill import PrefillPacer

Bound = Literal[
    "operator",
    "default",
    "kv",
    "seats",
    "start",
    "congestion",
    "live",
    "silence",
    "asleep",
    "answers",
]
"""What keeps the window from being larger. `default`: the engine tells nothing about itself;
`start`: it is still growing for the first time; `answers`: a wider one was no faster."""

_TELLS_NOTHING = EngineMetrics()


class WindowController:
    """The window of one replica. Call `observe` at each poll, `finished` for each answer."""

    def __init__(
        self,
        window_max: int = limits.WINDOW_MAX,
        *,
        window_start: int = limits.WINDOW_START,
        is_automatic: bool = True,
        itl_slo_s: float = limits.ITL_SLO_MS / 1000,
        ttft_slo_s: float = limits.TTFT_SLO_MS / 1000,
        allows_parts: bool = False,
    ) -> None:
        """`is_automatic`: the operator named no window, so an engine that tells nothing gets
        WINDOW_DEFAULT at most. `ttft_slo_s` bounds how long what is owed may take to be read.
        `allows_parts`: long prompts may be sent in parts to an engine that keeps what it has read.
        """
        self.window_max = window_max
        self.window = min(window_max, window_start)
        self.bound: Bound = "start"
        self.pacer = PrefillPacer()
        self.work = BatchStats()
        self.live = LiveTraffic()
        self.polls_missed = 0
        self.metrics = _TELLS_NOTHING
        """The last reading."""
        self._metrics_at_s: float | None = None
        self._repeats = 0
        self._automatic = is_automatic
        self._allows_parts = allows_parts
        self._itl_slo_s = itl_slo_s
        self.ttft_slo_s = ttft_slo_s
        """How soon a live call should begin, in seconds."""
        self._width = float(self.window)  # what growth and cuts alone make of it
        self._slow_until = float("inf")
        self._cut_at_s = float("-inf")
        self._width_bound: Bound = "start"

    def adopt(self, fresh: "WindowController") -> None:
        """Goes on with the bounds of `fresh`; what was learned of the engine stays. A window that
        an operator names is where it begins, so it is taken at once.
        """
        self.window_max = fresh.window_max
        self._automatic = fresh._automatic
        self._allows_parts = fresh._allows_parts
        self._itl_slo_s = fresh._itl_slo_s
        self.ttft_slo_s = fresh.ttft_slo_s
        if not fresh._automatic:
            self._width = fresh._width
        if self.bound != "asleep":
            self.window = max(1, min(self.window_max, int(self._width)))

    def finished(
        self, input_tokens: int, cached_tokens: int, output_tokens: int, elapsed_s: float
    ) -> None:
        """Records a batch call answered after `elapsed_s`, with the usage
        that the engine reported.
        """
        self.work.finished(input_tokens, cached_tokens, output_tokens, elapsed_s)

    def observe(
        self,
        metrics: EngineMetrics | None,
        calls: Sequence[BatchCall],
        now_s: float,
        live: LiveSeen = NO_LIVE,
        *,
        own_max: int = 0,
    ) -> None:
        """Resizes the window after a poll. `metrics` None: the poll failed; an engine without
        metrics passes an empty EngineMetrics().

        `calls` are the batch calls in flight now, `own_max` how many of them the engine may
        have counted at the poll.
        """
        if metrics is None or self._is_frozen(metrics, calls):
            self._missed(len(calls), now_s, live)
            return
        self.polls_missed = 0
        elapsed_s = now_s - self._metrics_at_s if self._metrics_at_s is not None else 0.0
        change = metrics_delta(self.metrics, metrics, elapsed_s)
        self.metrics, self._metrics_at_s = metrics, now_s
        self.live.see(metrics, max(own_max, len(calls)), live, now_s)
        self.work.polled(change, metrics.running)
        self._pace_prompts(change, calls, now_s)
        self._steer(change, calls, live, now_s)
        self._fit(calls)

    def revoked(self, calls: int, in_flight: int, now_s: float) -> None:
        """Records that so many of `in_flight` calls were aborted: their
        places stay free for now.
        """
        left = min(limits.WINDOW_CUT_REVOKED * self.window, float(in_flight - calls))
        self._width = self._slow_until = max(float(self._floor), left)
        self._cut_at_s, self._width_bound = now_s, "live"
        if int(self._width) < self.window:
            self.window, self.bound = int(self._width), "live"

    @property
    def has_metrics(self) -> bool:
        """Whether the engine reports anything about itself."""
        return self.metrics is not _TELLS_NOTHING and self.metrics != _TELLS_NOTHING

    @property
    def tells_prompts(self) -> bool:
        """Whether the engine reported at the last poll which prompts wait,
        and how many it has read.
        """
        metrics = self.metrics
        knows = metrics.waiting is not None and metrics.prompt_tokens_total is not None
        return knows and not self.polls_missed

    @property
    def is_stale(self) -> bool:
        """Whether the engine has been silent for too long to be trusted."""
        return self.polls_missed > limits.STALE_POLLS

    @property
    def bounds_steps(self) -> bool:
        """Whether the engine said at the last poll that it gives batch calls only what live ones
        leave of its steps. What it does not say any more, as after a restart, ends at once.
        """
        return self.metrics.bounds_steps and not self.polls_missed

    @property
    def sends_parts(self) -> bool:
        """Whether long prompts are sent in parts, as of the last poll."""
        at_s = self._metrics_at_s
        return at_s is not None and self.pacer.active and self.pacer.parts.is_active(at_s)

    @property
    def gives_way(self) -> bool:
        """Whether live traffic is what keeps the window small."""
        return self.live.calls > 0 and (
            self.bound == "live" or self.live.load >= limits.LIVE_LOAD_HIGH
        )

    # -- inside ------------------------------------------------------------------------------------

    @property
    def _floor(self) -> int:
        return min(limits.WINDOW_MIN, self.window_max)

    def _is_frozen(self, metrics: EngineMetrics, calls: Sequence[BatchCall]) -> bool:
        """Whether an engine at work keeps reporting the same values: its exporter hangs, or the
        engine itself. Only values that count while a request runs are compared.
        """
        counts = metrics.preemptions_total is not None and metrics.kv_used is not None
        is_same = bool(calls) and counts and metrics == self.metrics
        self._repeats = self._repeats + 1 if is_same else 0
        return self._repeats > limits.FROZEN_POLLS

    def _missed(self, own: int, now_s: float, live: LiveSeen) -> None:
        self.polls_missed += 1
        self.live.see_silent(own, live, now_s)
        self.pacer.parts.is_possible = False
        self.pacer.is_needed = True
        self.pacer.active = self.is_stale or self.live.is_recent(now_s)
        if self.is_stale and self.bound != "asleep":
            self._width = max(float(self._floor), self.window / 2)
            self.window = min(self.window, int(self._width))
            self.bound = self._width_bound = "silence"

    def _pace_prompts(self, change: MetricsDelta, calls: Sequence[BatchCall], now_s: float) -> None:
        """Bounds the outstanding prompt tokens, so that they are read before a live call that
        comes now has waited too long.
        """
        tokens = max(change.prompt_tokens - change.cached_tokens, self.work.take_read())
        self.pacer.learn(tokens, change.elapsed_s, now_s)
        self.pacer.is_needed = not self.bounds_steps
        self.pacer.parts.is_possible = self._allows_parts and self.metrics.caches_prefixes
        self.pacer.active = self.pacer.is_needed and self.live.is_recent(now_s)
        if self.pacer.active:
            self.pacer.sync(*self._unread(calls), now_s)
            self.pacer.keep_within(self.ttft_slo_s / 2)
            if change.itl_p99_s is not None:
                self.pacer.fit_steps(change.itl_p99_s, self._itl_slo_s, now_s)

    def _unread(self, calls: Sequence[BatchCall]) -> tuple[float, float]:
        """Tokens of batch prompts that the engine has not begun, and of the next older one or two,
        which it may be reading: the youngest are those that wait.
        """
        watched = sum(call.prefill_done is False for call in calls)
        waiting = max(0, int((self.metrics.waiting or 0) - self.live.waiting) - watched)
        by_age = sorted(calls, key=lambda call: call.age_s)
        young = [call.input_tokens for call in by_age if call.prefill_done is None]
        return float(sum(young[:waiting])), float(sum(young[waiting : waiting + 2]))

    def _steer(
        self, change: MetricsDelta, calls: Sequence[BatchCall], live: LiveSeen, now_s: float
    ) -> None:
        """Cuts, or grows if the window is used."""
        own = len(calls)
        has_metrics = change.itl_p50_s is not None  # else the mean of our own answers stands for it
        p50_s = change.itl_p50_s if has_metrics else self.work.token_gap_s
        has_live = self.live.calls > 0 and not self.bounds_steps
        if self._is_congested(change, calls, now_s):
            if own <= limits.WINDOW_CUT_SHOWN * self.window:  # else the last cut is yet to show
                self._cut(now_s, limits.WINDOW_CUT_EVERY_S, "congestion")
        elif (live.waiting and not self.bounds_steps) or (
            has_live and _above(p50_s, limits.WINDOW_CUT * self._itl_slo_s)
        ):
            self._cut(now_s, limits.WINDOW_CUT_LIVE_EVERY_S, "live")
        elif has_live and _above(change.itl_p99_s, self._itl_slo_s):
            self.pacer.decrease()
        else:
            self.pacer.increase()
            if own >= self.window - 1 and int(self._width) <= self.window:
                self._width += self._growth()

    def _growth(self) -> float:
        """Fast at first, but not far ahead of what is known about the lengths of answers: those
        that have not ended yet may turn out to fill the memory.
        """
        known = float("inf")
        if self.metrics.kv_capacity_tokens is not None:
            known = max(limits.WINDOW_UNKNOWN_MAX, limits.WINDOW_PER_KNOWN * self.work.known)
        slow_start = self._width < min(self._slow_until, known)
        if slow_start:
            return min(limits.WINDOW_SLOW_START * self._width, known - self._width + 1.0)
        if self._width < self._slow_until:
            return 0.0
        return max(1.0, limits.WINDOW_GROWTH * self._width)

    def _is_congested(self, change: MetricsDelta, calls: Sequence[BatchCall], now_s: float) -> bool:
        metrics = self.metrics
        own_waiting = (metrics.waiting or 0) - self.live.waiting
        # Beside live traffic every prompt that waits is one that a live call may wait behind.
        most = 1.0 if self.live.calls else max(limits.WAITING_MAX, 0.1 * (metrics.running or 0))
        # With the scheduler class those that wait delay nobody, and run when live traffic ebbs.
        queues = own_waiting > most and not (self.bounds_steps and self.live.calls)
        queues = queues and not self._is_next_step(own_waiting, calls, now_s)
        return queues or change.preemptions > 0 or (metrics.kv_used or 0.0) > limits.KV_CONGESTED

    def _is_next_step(self, waiting: float, calls: Sequence[BatchCall], now_s: float) -> bool:
        """Whether the engine reads all that wait in one step, as soon as seats are free. Answers of
        one length end together, and the seats stay empty until as many calls have come.
        """
        metrics = self.metrics
        lacks_memory = (metrics.kv_used or 0.0) > limits.KV_FULL
        if self.live.is_recent(now_s) or lacks_memory or waiting > (metrics.running or 0):
            return False
        return self._unread(calls)[0] <= limits.PREFILL_TOKENS_MAX

    def _cut(self, now_s: float, every_s: float, bound: Bound) -> None:
        if now_s - self._cut_at_s >= every_s:
            self._cut_at_s, self._width_bound = now_s, bound
            self._width = max(float(self._floor), limits.WINDOW_CUT * self.window)
            self._slow_until = self._width

    def _fit(self, calls: Sequence[BatchCall]) -> None:
        """Sets the window to the least of what growth made of it and of the ceilings."""
        if self.metrics.asleep:
            self.window, self.bound = 0, "asleep"
            return
        self._width = min(self._width, 2.0 * self.window_max)
        ceiling, bound = min(
            (self._width, self._width_bound),
            (float(self.window_max), "operator"),
            *self._ceilings(calls),
            key=lambda pair: pair[0],
        )
        self.window, self.bound = max(1, int(ceiling)), bound

    def _ceilings(self, calls: Sequence[BatchCall]) -> list[tuple[float, Bound]]:
        """W_kv = κ·C·(1 - h) / (KV of a call), and W_seat, as far as the engine tells."""
        ceilings: list[tuple[float, Bound]] = []
        metrics, held = self.metrics, self.work.mean_held(calls)
        if self._automatic and not self.has_metrics:
            ceilings.append((float(limits.WINDOW_DEFAULT), "default"))
        if metrics.kv_capacity_tokens is not None and held is not None:
            # With the scheduler class a burst takes its memory from batch calls.
            kept = self.live.load if self.bounds_steps else self.live.kv_reserve
            room = limits.WINDOW_KV_SHARE * (1 - kept) * metrics.kv_capacity_tokens
            ceilings.append((room / held, "kv"))
        if metrics.seats_max is not None:
            seats = metrics.seats_max
            ceilings.append((seats - self.live.seat_reserve(seats), "seats"))
        return ceilings


def _above(value: float | None, bound: float) -> bool:
    return value is not None and value > bound
