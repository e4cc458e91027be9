"""The settings of the simulated engine's scheduler, and those that stand for other engines."""

from dataclasses import dataclass
from typing import Literal

from lowtide.engine_sim.scheduling.step_budget import TOLERANCE, StepLimits


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Named as vLLM's flags where there is one. The defaults are those of its server on an H100."""

    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 8192
    scheduling_policy: Literal["fcfs", "priority", "lpm"] = "fcfs"
    """lpm is SGLang's: longest cached prefix first, while at most 128 wait."""
    long_prefill_token_threshold: int = 0
    """No chunk is longer; 0: no bound of its own."""
    watermark: float = 0.0
    """Share of the blocks that an admission leaves free."""
    reserve_full_isl: bool = True
    """Admit only when the whole prompt fits, not just its first chunk."""
    preempts_for_rank: bool = False
    """A waiting request may take the seat or KV of a running one of lower rank: SGLang does,
    vLLM may one day (`seat_preempt`)."""
    preempt_gap: int = 0
    """The least difference of priorities for that, exclusive."""
    retraction: Literal["vllm", "sglang"] = "vllm"
    """Who is preempted: the last admitted or worst rank, or who has generated least."""
    step_limits: StepLimits | None = None
    """What batch work may have of a step beside live calls, as with the scheduler class for vLLM
    (`step_bound`). Needs the priority policy; None: vLLM's own rule."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_num_seqs <= self.max_num_batched_tokens:
            raise ValueError("max_num_seqs must be from 1 to max_num_batched_tokens")
        if self.step_limits is not None and self.scheduling_policy != "priority":
            raise ValueError("a bound on steps needs the scheduling policy `priority`")


def step_bound_config(
    *,
    max_num_seqs: int = 1024,
    max_num_batched_tokens: int = 8192,
    tolerance: float = TOLERANCE,
    bound_s: float | None = None,
) -> SchedulerConfig:
    """The settings of a vLLM with the scheduler class: live calls take seats and KV from batch
    calls, and batch work gets what is left of a step under the bound."""
    return SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        scheduling_policy="priority",
        preempts_for_rank=True,
        step_limits=StepLimits(max_num_batched_tokens, tolerance, bound_s),
    )


def sglang_config(
    *, max_num_seqs: int = 1024, chunked_prefill_size: int = 8192, by_priority: bool = False
) -> SchedulerConfig:
    """The scheduler's settings as SGLang has them; priorities are reversed before they come here,
    so that lower goes first.
    """
    return SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max(chunked_prefill_size, max_num_seqs),
        scheduling_policy="priority" if by_priority else "lpm",
        preempts_for_rank=by_priority,
        preempt_gap=10,
        retraction="sglang",
    )
