"""What Hugging Face's text-generation-inference tells at /metrics and /info."""

from typing import Final

import msgspec

from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.engines.metrics.exposition import Exposition, ReadMetric, Samples

PAGE: Final = Exposition(
    (
        ReadMetric(("tgi_batch_current_size",), "how many requests run", is_always=False),
        ReadMetric(("tgi_queue_size",), "how many wait, so when to send no more", is_key=True),
        ReadMetric(("tgi_batch_current_max_tokens",), "how full its KV memory is", is_always=False),
        ReadMetric(("tgi_request_input_length_sum",), "how fast it reads prompts"),
        ReadMetric(("tgi_request_generated_tokens_sum",), "how fast it writes answers"),
        ReadMetric(("tgi_request_mean_time_per_token_duration_bucket",), "how long a token takes"),
    )
)


class TgiInfo(msgspec.Struct, frozen=True):
    """`max_batch_total_tokens` is the KV memory, in tokens, that batches are planned into."""

    max_batch_total_tokens: int | None = None
    max_batch_size: int | None = None


def metrics_of(samples: Samples, info: TgiInfo) -> EngineMetrics | None:
    """None when this is no page of TGI. A gauge that was never set is not on it: nothing ran."""
    if not samples.series("tgi_queue_size"):
        return None
    capacity, planned = info.max_batch_total_tokens, samples.total("tgi_batch_current_max_tokens")
    return EngineMetrics(
        running=samples.count("tgi_batch_current_size") or 0,
        waiting=samples.count("tgi_queue_size"),
        kv_used=min(1.0, (planned or 0.0) / capacity) if capacity else None,
        kv_capacity_tokens=capacity,
        seats_max=info.max_batch_size,
        prompt_tokens_total=samples.total("tgi_request_input_length_sum"),
        generation_tokens_total=samples.total("tgi_request_generated_tokens_sum"),
        itl_buckets=samples.buckets("tgi_request_mean_time_per_token_duration"),
    )
