"""What SGLang tells at /metrics (with --enable-metrics) and /get_server_info.

It is the one engine that declares how it reads priorities, so what to send is decided here.
"""

from typing import Final

import msgspec

from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.engines.metrics.exposition import Exposition, Labels, ReadMetric, Samples
from lowtide.limits import PRIORITY_GAP_SGLANG

_PREEMPTED: Final = ("sglang:num_retracted_requests", "sglang:num_retracted_reqs")

PAGE: Final = Exposition(
    (
        ReadMetric(("sglang:num_running_reqs",), "how many requests run", is_key=True),
        ReadMetric(("sglang:num_queue_reqs",), "how many wait, so when to send no more"),
        ReadMetric(("sglang:token_usage",), "how full its KV memory is"),
        ReadMetric(("sglang:max_total_num_tokens",), "how much of that there is", is_always=False),
        ReadMetric(_PREEMPTED, "whether too much was sent", is_always=False),
        ReadMetric(("sglang:prompt_tokens",), "how fast it reads prompts"),
        ReadMetric(("sglang:generation_tokens",), "how fast it writes answers"),
        ReadMetric(("sglang:cached_tokens",), "how much of prompts was cached", is_always=False),
        ReadMetric(("sglang:inter_token_latency_seconds_bucket",), "how long a token takes"),
    )
)


class SglangInfo(msgspec.Struct, frozen=True):
    """The arguments that the server runs with, as far as they matter here."""

    max_running_requests: int | None = None
    max_total_num_tokens: int | None = None
    enable_priority_scheduling: bool = False
    schedule_low_priority_values_first: bool = False
    default_priority_value: int | None = None
    priority_scheduling_preemption_threshold: int = 10
    disable_radix_cache: bool | None = None
    dp_size: int | None = None


def metrics_of(samples: Samples, info: SglangInfo) -> EngineMetrics | None:
    """None when this is no page of SGLang."""
    samples.keep(_is_first_rank)
    if not samples.series("sglang:num_running_reqs"):
        return None
    reported = samples.count("sglang:max_total_num_tokens")
    return EngineMetrics(
        running=samples.count("sglang:num_running_reqs"),
        waiting=_waiting(samples),
        kv_used=samples.mean("sglang:token_usage"),
        kv_capacity_tokens=reported or info.max_total_num_tokens,
        seats_max=info.max_running_requests,
        preemptions_total=samples.total(*_PREEMPTED),
        prompt_tokens_total=samples.total("sglang:prompt_tokens"),
        generation_tokens_total=samples.total("sglang:generation_tokens"),
        cached_tokens_total=samples.total("sglang:cached_tokens"),
        itl_buckets=samples.buckets("sglang:inter_token_latency_seconds"),
        caches_prefixes=info.disable_radix_cache is False and info.dp_size == 1,
    )


def batch_priority(info: SglangInfo) -> int | None:
    """A value that puts batch calls behind live ones, far enough for live ones to take their place.

    None unless the server schedules by priority and gives calls without one a value: where it does
    not, those are the last of all, and any value of a batch call would go before them.
    """
    if not info.enable_priority_scheduling or info.default_priority_value is None:
        return None
    gap = max(PRIORITY_GAP_SGLANG, info.priority_scheduling_preemption_threshold + 1)
    sign = 1 if info.schedule_low_priority_values_first else -1
    return info.default_priority_value + sign * gap


def _waiting(samples: Samples) -> int | None:
    """Requests in the queue; None: not reported. With priorities there is a sample for each, and
    one without that counts all.
    """
    series = samples.series("sglang:num_queue_reqs")
    whole = [value for labels, value in series if not labels.get("priority")]
    values = whole or [value for _, value in series]
    return max(0, int(sum(values))) if values else None


def _is_first_rank(labels: Labels) -> bool:
    """All ranks of one tensor-parallel group tell the same; those of data-parallel ones do not."""
    return bool(labels.get("dp_rank")) or labels.get("tp_rank", "0") in ("", "0")
