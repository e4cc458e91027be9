"""What Hugging Face's text-generation-inference tells at /metrics and /info."""

from typing import Final

import msgspec

from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.engines.metrics.exposition import Exposition, Samples

PAGE: Final = Exposition(
    (
        "tgi_batch_current_size",
        "tgi_queue_size",
        "tgi_batch_current_max_tokens",
        "tgi_request_input_length_sum",
        "tgi_request_generated_tokens_sum",
        "tgi_request_mean_time_per_token_duration_bucket",
    )
)


class TgiInfo(msgspec.Struct, frozen=True):
    """`max_batch_total_tokens` is the KV memory, in tokens, that batches are planned into."""

    max_batch_total_tokens: int | None = None
    max_batch_size: int | None = None


def signals_of(samples: Samples, info: TgiInfo) -> EngineMetrics | None:
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
