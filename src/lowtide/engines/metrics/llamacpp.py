"""What llama.cpp's server tells: /metrics (with --metrics), else /slots; /props for its slots.

Each slot has its context reserved, so there is no KV memory to run out of: seats are the bound.
"""

from typing import Final

import msgspec

from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.engines.metrics.exposition import Exposition, ReadMetric, Samples

PAGE: Final = Exposition(
    (
        ReadMetric(("llamacpp:requests_processing",), "how many requests run", is_key=True),
        ReadMetric(("llamacpp:requests_deferred",), "how many wait, so when to send no more"),
        ReadMetric(("llamacpp:prompt_tokens",), "how fast it reads prompts"),
        ReadMetric(("llamacpp:tokens_predicted",), "how fast it writes answers"),
    )
)


class LlamacppProps(msgspec.Struct, frozen=True):
    total_slots: int | None = None


class Slot(msgspec.Struct, frozen=True):
    """One of the list at /slots."""

    is_processing: bool = False


def metrics_of(samples: Samples, props: LlamacppProps) -> EngineMetrics | None:
    """None when this is no page of llama.cpp."""
    if not samples.series("llamacpp:requests_processing"):
        return None
    return EngineMetrics(
        running=samples.count("llamacpp:requests_processing"),
        waiting=samples.count("llamacpp:requests_deferred"),
        seats_max=props.total_slots,
        prompt_tokens_total=samples.total("llamacpp:prompt_tokens"),
        generation_tokens_total=samples.total("llamacpp:tokens_predicted"),
    )


def metrics_of_slots(slots: list[Slot], props: LlamacppProps) -> EngineMetrics | None:
    """The metrics by the list of slots, which does not show who waits."""
    if not slots:
        return None
    return EngineMetrics(
        running=sum(slot.is_processing for slot in slots), seats_max=props.total_slots or len(slots)
    )
