"""Learns how many calls an engine without metrics should have in flight, from its answers alone.

The window starts at one call and doubles with each round of answers while that brings throughput.
By Little's law the throughput at a width is width x speed, where the speed of a call is the work of
its answer over its latency. So a wider window is worth it as long as each call keeps most of its
speed: a server that computes one call at a time halves it with each doubling, one that computes
them together keeps it. Work is counted in tokens where the engine reports them, so that answers of
very different lengths compare. A width is refused only on enough answers, and then the next
narrower one is tried, too; the narrowest that gives nearly all of the throughput is kept. From time
to time, and as soon as calls become much faster or slower, the engine is measured again.

`Replica` (core/dispatch/replica.py) passes in each answer and each time-out that was not the
request's own. Pure: monotonic seconds in, `width` out. Invariant: 1 <= width <= width_max. Options
that were weighed: decision 9.
"""

from typing import Literal

import msgspec

from lowtide import limits
from lowtide.core.usage import Usage

_INPUT_WEIGHT = 0.1  # of a prompt token beside one of the answer: reading is several times faster


class Level(msgspec.Struct, frozen=True):
    """What was measured at one width: `speed` is work per second of one call, `spread` the variance
    of the seconds per work over their squared mean.
    """

    width: int
    speed: float
    latency_s: float
    answers: int
    spread: float

    @property
    def needed(self) -> int:
        """Answers that a refusal takes: more where they scatter, and three rounds at least, because
        the first calls of a wider window wait for fewer than those after them.
        """
        scattered = min(limits.LEARN_ANSWERS_MAX, int(self.spread / limits.LEARN_VARIANCE))
        return max(limits.LEARN_ANSWERS, 3 * self.width, scattered)

    def gain_over(self, narrow: "Level") -> float:
        """How much of the throughput that so many more calls could bring they do bring: 1 where all
        run at once, 0 where they only wait. By Little's law throughput is width x speed.
        """
        could = self.width / narrow.width
        return (could * self.speed / narrow.speed - 1.0) / (could - 1.0)


Phase = Literal["wider", "again", "narrower", "steady"]
"""wider: the present width is compared with a narrower one, and has to win. again: that narrower
width is measured in full, as too few answers stood against the wider one. narrower: the present
width is compared with a wider one. steady: nothing is tried until later.
"""


class LatencyWindow:
    """The window of one replica. Call `answered` for each success."""

    def __init__(
        self,
        width_max: int,
        *,
        timeout_s: float = limits.ATTEMPT_TIMEOUT_S,
        width: int = limits.LEARN_START,
    ) -> None:
        """`timeout_s` is what one call may take: no window is tried in which a call of the usual
        length would wait for as long behind Lowtide's other calls.
        """
        self.width = min(width, width_max)
        self.width_max = width_max
        self.phase: Phase = "wider"
        self._timeout_s = timeout_s
        self._base: Level | None = None  # what the present width is compared with
        self._hold_s = limits.LEARN_HOLD_S
        self._try_at_s = float("-inf")
        self._held = 0  # answers since the width was settled
        self.rests_until_s = float("-inf")
        """No answer needs to be passed in before this monotonic second."""
        self._cut_at_s = float("-inf")
        self._was_cut = False
        self._latency_s = 0.0  # of the last measure
        self._begin(float("-inf"), 1)

    def adopt(self, fresh: "LatencyWindow") -> None:
        """Goes on with the bounds of `fresh`, and with the width that was learned, if it fits."""
        self.width_max = fresh.width_max
        self.width = min(self.width, self.width_max)
        self._timeout_s = fresh._timeout_s

    def answered(self, sent_at_s: float, now_s: float, work: float, in_flight: int) -> None:
        """Records a call that succeeded. `in_flight` counts it, and all others at that moment.

        Calls that were sent before the width changed say nothing of it, nor do calls
        that did not fill the window.
        """
        if in_flight < self.width:
            self._begin(now_s, self._wanted)
        elif sent_at_s >= self._since_s:
            latency_s = now_s - sent_at_s
            each_s = latency_s / work
            self._answers += 1
            self._work += work
            self._call_s += latency_s
            self._each_s += each_s
            self._each_squared += each_s * each_s
            if self._answers >= self._wanted:
                self._measured(self._level(), now_s)

    @property
    def may_add_one(self) -> bool:
        """Whether one more call would be answered in its time even by an engine that computes it
        after those in flight, as far as the length of a call is known.
        """
        return 2 * self._latency_s <= self._timeout_s

    def timed_out(self, sent_at_s: float, now_s: float) -> None:
        """Records a call that got no answer in its time, and had waited
        behind Lowtide's other calls.

        All that were sent before a cut are late for the same reason, so they count once.
        """
        if sent_at_s < self._cut_at_s:
            return
        self._cut_at_s, self._was_cut = now_s, True
        self._settle_at(max(1, self.width // 2), None, now_s)

    def only_refused(self, now_s: float) -> None:
        """Records that nothing but refusals of requests came of late. They are quick
        and say nothing of what the engine can compute, so they widen the window a
        little and are no measure of it.
        """
        if self.width < min(limits.LEARN_REFUSED_MAX, self.width_max):
            self._settle_at(min(self.width_max, limits.LEARN_STEP * self.width), None, now_s)

    # -- inside ------------------------------------------------------------------------------------

    def _level(self) -> Level:
        call_s, each_s = max(self._call_s, 1e-9), max(self._each_s, 1e-9)
        spread = max(0.0, self._answers * self._each_squared / each_s**2 - 1.0)
        return Level(self.width, self._work / call_s, call_s / self._answers, self._answers, spread)

    def _measured(self, level: Level, now_s: float) -> None:
        base, self._latency_s = self._base, level.latency_s
        if self.phase == "wider":
            if base is None:
                self._widen(level, now_s, _step(level, None))
            else:
                self._compare_wider(level, base, now_s)
        elif level.answers < level.needed:
            self._wanted = level.needed  # go on measuring
        elif self.phase == "again":
            self._widen(level, now_s, limits.LEARN_STEP, limits.LEARN_STEP * level.needed)
        elif self.phase == "narrower" and base is not None:
            self._compare_narrower(level, base, now_s)
        else:
            self._watch(level, now_s)

    def _compare_wider(self, level: Level, base: Level, now_s: float) -> None:
        gain = level.gain_over(base)
        if gain >= limits.LEARN_GAIN_CLEAR or level.latency_s <= limits.LEARN_HARMLESS_S:
            self._widen(level, now_s, _step(level, base))
        elif level.answers < level.needed:
            self._wanted = level.needed
        elif gain >= limits.LEARN_GAIN:
            self._widen(level, now_s, limits.LEARN_STEP)
        elif level.width > limits.LEARN_STEP * base.width:  # too long a step
            self.width = limits.LEARN_STEP * base.width
            self._begin(now_s, level.needed)
        elif base.answers < base.needed:
            self.phase, self.width = "again", base.width
            self._begin(now_s, base.needed)
        elif base.width > 2:
            self._narrow(base, now_s)
        else:
            self._refused(base, level, now_s)

    def _refused(self, base: Level, level: Level, now_s: float) -> None:
        """Keeps two calls even with a serial engine, so that it need not wait between two answers,
        unless the second call would then come near its time-out.
        """
        self._back_off()
        two = level if level.width == 2 else None
        if base.width == 1 and two is not None and 2 * two.latency_s <= self._timeout_s:
            self._settle_at(2, two, now_s)
        else:
            self._settle_at(base.width, base, now_s)

    def _compare_narrower(self, level: Level, base: Level, now_s: float) -> None:
        if base.gain_over(level) >= limits.LEARN_GAIN:
            self._back_off()
            self._settle_at(base.width, base, now_s)
        elif level.speed > limits.LEARN_CHANGED * base.width / level.width * base.speed:
            # More than company can explain: the engine itself was slow, as when it loads a model.
            self._settle_at(base.width, None, now_s)
        elif level.width > 2:
            self._narrow(level, now_s)
        else:
            self._back_off()
            self._settle_at(level.width, level, now_s)

    def _watch(self, level: Level, now_s: float) -> None:
        known = self._base or level
        self._held += level.answers
        is_due = now_s >= self._try_at_s and self._held >= limits.LEARN_HOLD_ANSWERS
        is_faster = level.speed >= limits.LEARN_CHANGED * known.speed
        is_harmless = level.latency_s <= limits.LEARN_HARMLESS_S
        is_quick = level.latency_s <= limits.LEARN_QUICK_S
        is_slower = level.speed * limits.LEARN_CHANGED <= known.speed and not is_quick
        if (is_slower or self._base is None) and not is_harmless and self.width > 2:
            self._narrow(level, now_s)
        elif self.width < self.width_max and (is_faster or is_harmless or is_due):
            wanted = max(limits.LEARN_ANSWERS, limits.LEARN_STEP * self.width)
            self._widen(level, now_s, limits.LEARN_STEP, wanted, is_due=True)
        else:
            self._base = known
            self._begin(now_s, level.needed)
            self.rests_until_s = now_s + (limits.LEARN_REST_S if is_quick else 0.0)

    def _widen(
        self, level: Level, now_s: float, step: int, wanted: int = 0, *, is_due: bool = False
    ) -> None:
        """Tries `step` times the width. At worst, each call then takes so many times as long."""
        is_risky = step * level.latency_s > self._timeout_s and (self._was_cut or not is_due)
        if self.width >= self.width_max or is_risky:
            self._hold_s = limits.LEARN_HOLD_S_MAX if is_risky else self._hold_s
            self._settle_at(self.width, level, now_s)
            return
        if not is_due:
            self._hold_s = limits.LEARN_HOLD_S
        self.phase, self._base = "wider", level
        self.width = min(self.width_max, step * self.width)
        self._begin(now_s, wanted or self.width)

    def _narrow(self, level: Level, now_s: float) -> None:
        self.phase, self._base = "narrower", level
        self.width = level.width // 2
        self._begin(now_s, limits.LEARN_ANSWERS)

    def _settle_at(self, width: int, level: Level | None, now_s: float) -> None:
        self.phase, self.width, self._base = "steady", width, level
        self._try_at_s, self._held = now_s + self._hold_s, 0
        self._begin(now_s, limits.LEARN_ANSWERS)

    def _back_off(self) -> None:
        self._hold_s = min(limits.LEARN_HOLD_S_MAX, 2 * self._hold_s)

    def _begin(self, since_s: float, wanted: int) -> None:
        """Begins a new measurement, of the calls sent from now on."""
        # A burst of answers is a burst of new calls: those a moment ago count as sent just now.
        self._since_s, self._wanted = since_s - 0.1 * self._latency_s, wanted
        self.rests_until_s = since_s
        self._answers = 0
        self._work = self._call_s = self._each_s = self._each_squared = 0.0


def _step(level: Level, base: Level | None) -> int:
    """The factor for the next width: fourfold where calls are so quick that a mistake is soon over,
    and nothing speaks against it.
    """
    if level.latency_s <= limits.LEARN_HARMLESS_S:
        return limits.LEARN_STEP_QUICK
    if base is None or level.latency_s > limits.LEARN_QUICK_S:
        return limits.LEARN_STEP
    is_usual = (
        limits.LEARN_GAIN_ALL * base.speed <= level.speed <= limits.LEARN_CHANGED * base.speed
    )
    return limits.LEARN_STEP_QUICK if is_usual else limits.LEARN_STEP


def work_of(usage: Usage) -> float:
    """The size of an answer: tokens, or one where the engine reports none."""
    unread = usage.input_tokens - usage.cached_tokens
    return 1.0 + usage.output_tokens + _INPUT_WEIGHT * unread
