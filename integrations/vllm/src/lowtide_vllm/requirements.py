"""What the scheduler class needs of a vLLM, and its settings. Imports no vLLM, so tests need none.

The class looks into parts of vLLM that are no public interface. Whatever it was not tried with it
refuses when the engine starts, with a sentence, and never works by half.
"""

from collections.abc import Mapping
from typing import Any, Final

from .step_budget import TOLERANCE, StepLimits

VERSIONS: Final = ("0.32",)
"""Those that `make test-vllm` was passed with."""
CLASS_PATH: Final = "lowtide_vllm.scheduler.StepBoundScheduler"
SYNC_PATH: Final = "lowtide_vllm.scheduler.StepBoundSyncScheduler"
SETTINGS: Final = ("tolerance", "itl_bound_ms", "hold_max_ms")
"""Keys of `lowtide` in vLLM's --additional-config."""


class Unsupported(ValueError):
    """This vLLM, or a feature of it, does not work with the class. The message says what to do."""


def limits_of(vllm_config: Any) -> StepLimits:
    """The settings, from --additional-config '{"lowtide": {"tolerance": 2.5}}'.

    Raises Unsupported for a key that is none, or a value out of range.
    """
    asked = (vllm_config.additional_config or {}).get("lowtide", {})
    if not isinstance(asked, Mapping) or not set(asked) <= set(SETTINGS):
        raise Unsupported(
            f"--additional-config: `lowtide` may have {', '.join(SETTINGS)}, and has {asked!r}."
        )
    bound_ms = asked.get("itl_bound_ms")
    try:
        return StepLimits(
            tokens_max=vllm_config.scheduler_config.max_num_batched_tokens,
            tolerance=float(asked.get("tolerance", TOLERANCE)),
            bound_s=None if bound_ms is None else float(bound_ms) / 1000,
            hold_max_s=float(asked.get("hold_max_ms", 500)) / 1000,
        )
    except (TypeError, ValueError) as error:
        raise Unsupported(f"--additional-config: `lowtide` is {dict(asked)!r}: {error}.") from None


def check(
    vllm_config: Any, kv_cache_config: Any, version: str, *, plans_ahead: bool = True
) -> None:
    """Raises Unsupported, for the first thing that is missing or in the way.

    `plans_ahead`: the class is the one for asynchronous scheduling.
    """
    model, scheduler = vllm_config.model_config, vllm_config.scheduler_config
    if not any(version == known or version.startswith(f"{known}.") for known in VERSIONS):
        raise Unsupported(
            f"This is vLLM {version}; {CLASS_PATH} works with {', '.join(VERSIONS)}. Leave out "
            "--scheduler-cls, or install a newer lowtide-vllm."
        )
    needs = (
        (scheduler.policy == "priority", "--scheduling-policy priority"),
        (scheduler.enable_chunked_prefill, "chunked prefill"),
    )
    for is_there, what in needs:
        if not is_there:
            raise Unsupported(f"{CLASS_PATH} needs {what}; start vLLM with it.")
    if bool(scheduler.async_scheduling) != plans_ahead:
        state, path = ("on", CLASS_PATH) if scheduler.async_scheduling else ("off", SYNC_PATH)
        raise Unsupported(
            f"Asynchronous scheduling is {state} in this engine: choose --scheduler-cls {path}."
        )
    obstacles = (
        (vllm_config.speculative_config is not None, "speculative decoding"),
        (vllm_config.kv_transfer_config is not None, "transfer of KV between engines"),
        (vllm_config.ec_transfer_config is not None, "transfer of encoder outputs"),
        (vllm_config.parallel_config.pipeline_parallel_size > 1, "pipeline parallelism"),
        (model.runner_type != "generate", "models that do not generate"),
        (model.is_encoder_decoder, "models with an encoder and a decoder"),
        (model.is_diffusion, "diffusion models"),
        (kv_cache_config.has_mamba_layers, "models with Mamba layers"),
    )
    for is_there, what in obstacles:
        if is_there:
            raise Unsupported(
                f"{CLASS_PATH} was not tried with {what}. Leave out one of them; without "
                "--scheduler-cls vLLM works as ever."
            )
