"""A replica with its window and controller, as the settings bound them."""

from typing import Final

from lowtide import limits
from lowtide.config import ReplicaSettings as ReplicaSettings
from lowtide.core.bodies.prompt_part import ANSWER_FIELDS, CUTTABLE_FIELDS
from lowtide.core.capacity.latency_window import LatencyWindow
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.replica import Replica

_PART_FIELDS: Final = CUTTABLE_FIELDS - ANSWER_FIELDS
"""Fields that may be set in every body without harm to the parts of prompts."""


def replica_of(
    url: str,
    models: frozenset[str],
    settings: ReplicaSettings,
    bound: int,
    timeout_s: float,
    *,
    spares_long: bool,
) -> Replica:
    """`url` is the address as its engine client writes it, `timeout_s` what one attempt may take,
    `bound` what its window may be at most.
    `spares_long`: see `Replica`.
    """
    controller = WindowController(
        bound,
        window_start=min(bound, limits.WINDOW_START) if settings.window is None else bound,
        is_automatic=settings.window is None,
        itl_slo_s=settings.itl_slo_ms / 1000,
        ttft_slo_s=settings.ttft_slo_ms / 1000,
        allows_parts=settings.prompt_parts and settings.extra_body.keys() <= _PART_FIELDS,
    )
    learned_max = min(bound, limits.WINDOW_DEFAULT) if settings.window is None else bound
    return Replica(
        url,
        models,
        bound,
        controller=controller,
        learned=LatencyWindow(learned_max, timeout_s=timeout_s, width=limits.LEARN_START),
        spares_long=spares_long,
        streams=None if settings.watch_prompts == "auto" else settings.watch_prompts,
        name=settings.label,
    )
