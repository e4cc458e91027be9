"""Which batch calls are taken back when live traffic waits and there is no other room for it.

The window works within seconds; a burst of live calls in front of an engine whose memory is held by
long batch answers would wait for minutes. Then the youngest batch calls are aborted, which have the
least to lose, until what they free is what is needed, and run again later (scheduling.md section 3,
REVOKE). Pure; the control loop aborts what is named here.

Invariant: what giving way has cost in the last REVOKED_SPAN_S is at most REVOKED_SHARE_MAX of the
tokens worked on in that time.
"""

from collections import deque
from collections.abc import Sequence

import msgspec

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, EngineMetrics, LiveSeen

_SPANS = 20  # pieces of REVOKED_SPAN_S that are forgotten one by one


class _Span(msgspec.Struct):
    number: int
    finished: float = 0.0
    lost: float = 0.0


class PreemptionPolicy:
    """Chooses batch calls of one replica to abort when live calls wait for memory.

    Call `revoke` at each poll, `finished` for each answer.
    """

    def __init__(self) -> None:
        self._spans: deque[_Span] = deque()
        self._waiting_before = 0.0
        self.revoked_total = 0
        self.lost_tokens_total = 0.0

    def finished(self, tokens: int, now_s: float) -> None:
        """Records an answered batch call: its prompt and answer tokens together."""
        self._span(now_s).finished += tokens

    def revoke(
        self,
        metrics: EngineMetrics | None,
        calls: Sequence[BatchCall],
        outputs: Sequence[float],
        live: LiveSeen,
        reported_waiting: float,
        now_s: float,
    ) -> list[int]:
        """Places in `calls` of those to abort now, youngest first; they count as lost at once.

        `outputs` are the tokens that each call has written so far; `reported_waiting` the live
        calls that the engine's numbers say wait: they count when two polls in a row agree. None
        from an engine that bounds the batch's part itself, and preempts for live calls.
        """
        if metrics is not None and metrics.bounds_steps:
            self._waiting_before = 0.0
            return []
        confirmed, self._waiting_before = (
            min(reported_waiting, self._waiting_before),
            reported_waiting,
        )
        waiting = max(float(live.waiting), confirmed)
        if waiting < 1 or not calls or not _is_full(metrics):
            return []
        needed = waiting * live.tokens_each
        may_lose = self._may_lose(calls, outputs, now_s)
        chosen: list[int] = []
        freed = 0.0
        for place in sorted(range(len(calls)), key=lambda place: calls[place].age_s):
            if len(chosen) >= waiting and freed >= needed:
                break
            cost = calls[place].input_tokens + outputs[place]
            if freed + cost <= may_lose:
                chosen.append(place)
                freed += cost
        self._span(now_s).lost += freed
        self.revoked_total += len(chosen)
        self.lost_tokens_total += freed
        return chosen

    def _may_lose(
        self, calls: Sequence[BatchCall], outputs: Sequence[float], now_s: float
    ) -> float:
        """Tokens that may be lost now. What is in flight counts as work, too: else nothing
        could be taken back at first.
        """
        finished, lost = self._recent(now_s)
        at_work = sum(call.input_tokens for call in calls) + sum(outputs)
        return limits.REVOKED_SHARE_MAX * (finished + lost + at_work) - lost

    def _recent(self, now_s: float) -> tuple[float, float]:
        """(finished, lost). Losses are remembered for one span longer than work: on the safe
        side."""
        self._span(now_s)
        newest = self._spans[-1].number
        finished = sum(span.finished for span in self._spans if span.number > newest - _SPANS)
        return finished, sum(span.lost for span in self._spans)

    def _span(self, now_s: float) -> _Span:
        number = int(now_s * _SPANS / limits.REVOKED_SPAN_S)
        if not self._spans or self._spans[-1].number < number:
            self._spans.append(_Span(number))
            while self._spans[0].number < number - _SPANS:
                self._spans.popleft()
        return self._spans[-1]


def _is_full(metrics: EngineMetrics | None) -> bool:
    """Whether memory or seats are what live calls wait for. Where the engine tells neither, their
    waiting is all there is to go by.
    """
    if metrics is None or metrics.running is None:
        return True
    if metrics.kv_used is None and metrics.seats_max is None:
        return True
    if (metrics.kv_used or 0.0) > limits.KV_FULL:
        return True
    return metrics.seats_max is not None and metrics.running >= metrics.seats_max
