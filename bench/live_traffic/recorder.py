"""What live users felt and what batches got, in one run.

An inter-token gap of a user is the duration of the step that made the token, so a step counts once
for each interactive request that decoded in it. Percentiles are over all gaps and all requests
behind the warm-up.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from lowtide.engine_sim.engine import StepEvents
from lowtide.engine_sim.state.requests import SimRequest

WARM_UP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Felt:
    """Seconds, tokens and tokens a second. `ttft_*` and `itl_*` are NaN without live traffic."""

    ttft_p50: float
    ttft_p99: float
    itl_p50: float
    itl_p99: float
    ttft_met: float
    """Share of live requests whose first token came within a second."""
    batch_in_per_s: float
    batch_out_per_s: float
    batch_requests: int
    lost_share: float
    """Generated batch tokens that giving way threw away, of all generated for batches."""
    preemptions: int
    unanswered: int
    """Live requests that had no first token at the end; they count with what they waited so far."""


@dataclass(slots=True)
class Recorder:
    """Told of what happens; batch work counts while `WARM_UP_S <= now < until_s`."""

    until_s: float
    ttfts: list[float] = field(default_factory=list)
    gaps: dict[float, int] = field(default_factory=dict)
    batch_in: int = 0
    batch_out: int = 0
    batch_requests: int = 0
    lost_tokens: int = 0
    preemptions: int = 0
    waiting: dict[str | int, float] = field(default_factory=dict)
    series: dict[int, list[float]] = field(default_factory=dict)
    """By minute: live requests, batch prompt tokens."""

    def asked(self, request: SimRequest, now: float) -> None:
        self.waiting[request.id] = now
        self._minute(now)[0] += 1

    def step(self, events: StepEvents) -> None:
        if events.ended_at < WARM_UP_S:
            return
        self.preemptions += len(events.preempted)
        if events.interactive_decodes:
            gap = round(events.duration_s, 5)
            self.gaps[gap] = self.gaps.get(gap, 0) + events.interactive_decodes
        for request in events.resumed:
            if request.interactive:
                stall = round(events.ended_at - request.stalled_at, 5)
                self.gaps[stall] = self.gaps.get(stall, 0) + 1

    def first_token(self, request: SimRequest, now: float) -> None:
        asked_at = self.waiting.pop(request.id, None)
        if asked_at is not None and asked_at >= WARM_UP_S:
            self.ttfts.append(now - asked_at)

    def batch_finished(self, request: SimRequest, now: float) -> None:
        self._minute(now)[1] += request.prompt_tokens
        if WARM_UP_S <= now < self.until_s:
            self.batch_in += request.prompt_tokens
            self.batch_out += request.output_tokens
            self.batch_requests += 1

    def batch_lost(self, made: int) -> None:
        self.lost_tokens += made

    def _minute(self, now: float) -> list[float]:
        return self.series.setdefault(int(now // 60), [0.0, 0.0])

    def felt(self) -> Felt:
        left = [self.until_s - at for at in self.waiting.values() if at >= WARM_UP_S]
        ttfts = np.array(self.ttfts + left)
        span = self.until_s - WARM_UP_S
        made = self.batch_out + self.lost_tokens
        return Felt(
            ttft_p50=_quantile(ttfts, 0.5),
            ttft_p99=_quantile(ttfts, 0.99),
            itl_p50=_weighted(self.gaps, 0.5),
            itl_p99=_weighted(self.gaps, 0.99),
            ttft_met=float((ttfts <= 1.0).mean()) if len(ttfts) else math.nan,
            batch_in_per_s=self.batch_in / span,
            batch_out_per_s=self.batch_out / span,
            batch_requests=self.batch_requests,
            lost_share=self.lost_tokens / made if made else 0.0,
            preemptions=self.preemptions,
            unanswered=len(left),
        )


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else math.nan


def _weighted(counts: dict[float, int], share: float) -> float:
    wanted, below = share * sum(counts.values()), 0
    for value in sorted(counts):
        below += counts[value]
        if below >= wanted:
            return value
    return math.nan
