"""What an engine says about itself at one instant, and what two such instants say together.

Readers (engines/metrics) fill `EngineMetrics` from an engine's metrics; the window controller
and the preemption policy act on it. Every field may be None: an engine that does not tell is no
engine at rest, and nothing here turns "not told" into a number. Names and meaning:
scheduling.md section 2(a).
"""

from typing import Final

import msgspec

from lowtide.limits import LIVE_CALL_TOKENS

Buckets = tuple[tuple[float, float], ...]
"""A cumulative histogram: (upper bound, observations up to it), ascending; the last bound is inf.
"""


class EngineMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One reading. Totals count since the engine's start and fall back to 0 with it."""

    running: int | None = None
    waiting: int | None = None
    kv_used: float | None = None
    """Share of the KV memory that running requests hold, from 0 to 1."""
    kv_capacity_tokens: int | None = None
    seats_max: int | None = None
    """Requests that can run together, whatever their KV."""
    preemptions_total: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    cached_tokens_total: float | None = None
    itl_buckets: Buckets = ()
    """Gaps between two tokens of one answer, in seconds, since the engine's start."""
    asleep: bool = False
    bounds_steps: bool = False
    """Batch calls get only what live ones leave of its steps: it has the scheduler class."""
    caches_prefixes: bool = False
    """It is known to keep what it has read of a prompt for the next call that begins alike."""


class BatchCall(msgspec.Struct, frozen=True):
    """A batch call in flight: seconds since it was sent, and its prompt's estimated tokens.

    `prefill_done`: whether the engine has read the prompt; None: unknown. `stays`: it was preempted
    often enough and is not to be aborted again.
    """

    age_s: float
    input_tokens: int
    prefill_done: bool | None = None
    stays: bool = False


class LiveSeen(msgspec.Struct, frozen=True):
    """What the live API has at a replica. `waiting` are those in need: too long without a
    first byte. `tokens_each` is what one of them holds, prompt and answer.
    """

    in_flight: int = 0
    waiting: int = 0
    tokens_each: float = float(LIVE_CALL_TOKENS)


NO_LIVE: Final = LiveSeen()


class MetricsDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What happened between two readings `elapsed_s` apart. Tokens are 0 where not told."""

    elapsed_s: float
    preemptions: float = 0.0
    prompt_tokens: float = 0.0
    """Prompt tokens as counted by the engine, cached ones included."""
    cached_tokens: float = 0.0
    generation_tokens: float = 0.0
    itl_p50_s: float | None = None
    itl_p99_s: float | None = None


def metrics_delta(before: EngineMetrics, after: EngineMetrics, elapsed_s: float) -> MetricsDelta:
    """Counters that fell were reset by a restart: then `after` alone is what happened."""
    gaps = _gaps(before.itl_buckets, after.itl_buckets)
    return MetricsDelta(
        elapsed_s=elapsed_s,
        preemptions=_grown(before.preemptions_total, after.preemptions_total),
        prompt_tokens=_grown(before.prompt_tokens_total, after.prompt_tokens_total),
        cached_tokens=_grown(before.cached_tokens_total, after.cached_tokens_total),
        generation_tokens=_grown(before.generation_tokens_total, after.generation_tokens_total),
        itl_p50_s=quantile(gaps, 0.5),
        itl_p99_s=quantile(gaps, 0.99),
    )


def quantile(buckets: Buckets, share: float) -> float | None:
    """Linear within the bucket, as Prometheus does; None when nothing was observed.

    What lies above the last finite bound is said to lie on it.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    wanted = share * buckets[-1][1]
    low, below = 0.0, 0.0
    for upper, count in buckets:
        if count >= wanted:
            if upper == float("inf"):
                return low
            inside = count - below
            return low + (upper - low) * ((wanted - below) / inside if inside > 0 else 1.0)
        low, below = upper, count
    return low


def _grown(before: float | None, after: float | None) -> float:
    if after is None or before is None:
        return 0.0
    return after - before if after >= before else after


def _gaps(before: Buckets, after: Buckets) -> Buckets:
    """Observations between two readings; those of the engine's whole life say nothing of now."""
    if not before or [upper for upper, _ in before] != [upper for upper, _ in after]:
        return ()
    counts = [now - then for (_, then), (_, now) in zip(before, after, strict=True)]
    if any(count < 0 for count in counts):
        return ()  # a restart: the next reading tells
    return tuple((upper, count) for (upper, _), count in zip(after, counts, strict=True))
