"""What vLLM tells at /metrics. One sample for each `engine` where it runs data-parallel."""

from typing import Final

from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.engines.metrics.exposition import Exposition, Labels, ReadMetric, Samples

_KV_USED: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_CACHED: Final = ("vllm:prompt_tokens_cached", "vllm:prefix_cache_hits")
_GAPS: Final = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")

STEP_BOUND: Final = "lowtide:step_bound_info"
"""Told by the scheduler class of integrations/vllm, once for each engine that has it."""

PAGE: Final = Exposition(
    (
        ReadMetric(("vllm:num_requests_running",), "how many requests run", is_key=True),
        ReadMetric(("vllm:num_requests_waiting",), "how many wait, so when to send no more"),
        ReadMetric(_KV_USED, "how full its KV memory is"),
        ReadMetric(("vllm:cache_config_info",), "how much KV memory there is"),
        ReadMetric(("vllm:num_preemptions",), "whether too much was sent"),
        ReadMetric(("vllm:prompt_tokens",), "how fast it reads prompts"),
        ReadMetric(("vllm:generation_tokens",), "how fast it writes answers"),
        ReadMetric(_CACHED, "how much of prompts was in its cache"),
        ReadMetric(tuple(f"{name}_bucket" for name in _GAPS), "how long a token takes"),
        ReadMetric(("vllm:engine_sleep_state",), "whether it sleeps", is_always=False),
        ReadMetric((STEP_BOUND,), "whether it has the scheduler class", is_always=False),
    )
)


def metrics_of(samples: Samples) -> EngineMetrics | None:
    """None when this is no page of vLLM."""
    if not samples.series("vllm:num_requests_running"):
        return None
    return EngineMetrics(
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
        bounds_steps=_bounds_steps(samples),
        caches_prefixes=_caches_prefixes(samples),
    )


def _kv_capacity(samples: Samples) -> int | None:
    """The KV tokens of all engines together; None from a server that has not counted its blocks.

    `num_gpu_blocks` is the sum over the engines of a data-parallel server, reported once for each
    of them. `kv_cache_size_tokens`, which newer versions report as well, is each engine's own, and
    right for models whose layers do not all keep the same (seen in 0.32 with two engines).
    """
    own: dict[str, int] = {}
    blocks_of_all = 0
    for labels, _ in samples.series("vllm:cache_config_info"):
        size = _whole(labels, "kv_cache_size_tokens")
        if size:
            own[labels.get("engine", "")] = size
        blocks = _whole(labels, "num_gpu_blocks") * _whole(labels, "block_size")
        blocks_of_all = max(blocks_of_all, blocks)
    return sum(own.values()) or blocks_of_all or None


def _whole(labels: Labels, name: str) -> int:
    """0 for a label that is not there or says None."""
    value = labels.get(name, "")
    return int(value) if value.isdecimal() else 0


def _caches_prefixes(samples: Samples) -> bool:
    """Whether there is one engine behind the URL, and it says that its prefix cache is on. Of
    several, each has its own, and the next call may go to another one.
    """
    reported = [
        labels.get("enable_prefix_caching")
        for labels, _ in samples.series("vllm:cache_config_info")
    ]
    return reported == ["True"]


def _bounds_steps(samples: Samples) -> bool:
    """Whether every engine behind the URL has the scheduler class; one without is to be paced."""
    running = {labels.get("engine") for labels, _ in samples.series("vllm:num_requests_running")}
    return running <= {labels.get("engine") for labels, _ in samples.series(STEP_BOUND)}


def _is_asleep(samples: Samples) -> bool:
    """Asleep when no engine behind the URL is awake; a vLLM that does not say is awake."""
    awake = [
        value
        for labels, value in samples.series("vllm:engine_sleep_state")
        if labels.get("sleep_state") == "awake"
    ]
    return bool(awake) and not any(awake)
