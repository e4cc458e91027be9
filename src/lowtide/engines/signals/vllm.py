"""What vLLM tells at /metrics. One sample for each `engine` where it runs data-parallel."""

from typing import Final

from lowtide.core.signals import EngineSignals
from lowtide.engines.signals.exposition import Exposition, Samples

_KV_USED: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_CACHED: Final = ("vllm:prompt_tokens_cached", "vllm:prefix_cache_hits")
_GAPS: Final = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")

PAGE: Final = Exposition(
    (
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        *_KV_USED,
        "vllm:cache_config_info",
        "vllm:num_preemptions",
        "vllm:prompt_tokens",
        "vllm:generation_tokens",
        *_CACHED,
        *(f"{name}_bucket" for name in _GAPS),
        "vllm:engine_sleep_state",
    )
)


def signals_of(samples: Samples) -> EngineSignals | None:
    """None when this is no page of vLLM."""
    if not samples.series("vllm:num_requests_running"):
        return None
    return EngineSignals(
        running=samples.count("vllm:num_requests_running"),
        waiting=samples.count("vllm:num_requests_waiting"),
        kv_used=samples.mean(*_KV_USED),
        kv_capacity_tokens=_kv_capacity(samples),
        preemptions_total=samples.total("vllm:num_preemptions"),
        prompt_tokens_total=samples.total("vllm:prompt_tokens"),
        generation_tokens_total=samples.total("vllm:generation_tokens"),
        cached_tokens_total=samples.total(*_CACHED),
        itl_buckets=samples.buckets(*_GAPS),
        asleep=_is_asleep(samples),
    )


def _kv_capacity(samples: Samples) -> int | None:
    """Blocks times tokens a block; an engine that has not counted its blocks says None."""
    tokens = 0
    for labels, _ in samples.series("vllm:cache_config_info"):
        blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
        if blocks.isdecimal() and size.isdecimal():
            tokens += int(blocks) * int(size)
    return tokens or None


def _is_asleep(samples: Samples) -> bool:
    """Asleep when no engine behind the URL is awake; a vLLM that does not say is awake."""
    awake = [
        value
        for labels, value in samples.series("vllm:engine_sleep_state")
        if labels.get("sleep_state") == "awake"
    ]
    return bool(awake) and not any(awake)
