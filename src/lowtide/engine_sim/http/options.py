"""What a simulated engine's server is started with, and the scheduler that follows from it."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from lowtide.engine_sim.engine import SimEngine
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engine_sim.real_time.faults import EngineFaults
from lowtide.engine_sim.scheduling.scheduler_config import (
    SchedulerConfig,
    sglang_config,
    step_bound_config,
)

Face = Literal["vllm", "sglang", "llamacpp"]

CONTEXT_MAX: Final = 131_072
"""The context length, in tokens, of the models that the profiles are about."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Names as the flags of `lowtide simulate-engine`. Raises ValueError for what cannot work."""

    profile: str = "8b-h100"
    model: str = ""
    """Empty: the profile's own."""
    face: Face = "vllm"
    time_scale: float = 1.0
    """Simulated seconds in a real one."""
    max_num_seqs: int | None = None
    """None: what the face's engine has; the slots of llama.cpp."""
    max_num_batched_tokens: int | None = None
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    batch_scheduler: Literal["stock", "step-bound"] = "stock"
    """step-bound: vLLM with Lowtide's scheduler class; see `step_bound_config`."""
    itl_bound_ms: float | None = None
    """None: so many milliseconds as the scheduler class takes by itself."""
    long_prefill_token_threshold: int = 0
    watermark: float = 0.0
    seat_preempt: bool = False
    """vLLM as it may be one day: see `SchedulerConfig.preempts_for_rank`."""
    kv_tokens: int | None = None
    max_model_len: int = 0
    """0: as long as the cache and the model allow; of one slot for llama.cpp."""
    max_num_queued_reqs: int = 0
    """503 above it; 0: no bound."""
    stream_interval: int = 1
    """Tokens per event of a stream."""
    output_mu: float = 5.0
    output_sigma: float = 0.9
    """The sigma of the lognormal length of answers that nothing else bounds."""
    efficiency: float = 1.0
    faults: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"{self.profile!r} is no profile; there are {', '.join(PROFILES)}")
        if self.time_scale <= 0 or self.efficiency <= 0 or self.stream_interval < 1:
            raise ValueError("time scale, efficiency and stream interval must be above 0")
        if self.batch_scheduler == "step-bound" and self.face != "vllm":
            raise ValueError("step-bound is a scheduler of vLLM")
        if self.itl_bound_ms is not None and self.batch_scheduler != "step-bound":
            raise ValueError("a bound on steps needs --batch-scheduler step-bound")
        EngineFaults(self.faults)
        self.scheduler_config()

    @property
    def served_model(self) -> str:
        return self.model or PROFILES[self.profile].model

    @property
    def context_max(self) -> int:
        """Prompt and output of one request together."""
        room = self._cache_tokens
        if self.face == "llamacpp":
            room //= self.scheduler_config().max_num_seqs
        return min(self.max_model_len or CONTEXT_MAX, room)

    @property
    def _cache_tokens(self) -> int:
        tokens = PROFILES[self.profile].kv_tokens if self.kv_tokens is None else self.kv_tokens
        return tokens - int(tokens * self.watermark)

    def scheduler_config(self) -> SchedulerConfig:
        by_priority = self.scheduling_policy == "priority"
        if self.face == "sglang":
            return sglang_config(
                max_num_seqs=self.max_num_seqs or 1024,
                chunked_prefill_size=self.max_num_batched_tokens or 8192,
                by_priority=by_priority,
            )
        if self.face == "llamacpp":
            # Each slot has its context for itself: nothing is ever preempted for room.
            return SchedulerConfig(
                max_num_seqs=self.max_num_seqs or 4,
                max_num_batched_tokens=self.max_num_batched_tokens or 2048,
            )
        if self.batch_scheduler == "step-bound":
            return step_bound_config(
                max_num_seqs=self.max_num_seqs or 1024,
                max_num_batched_tokens=self.max_num_batched_tokens or 8192,
                bound_s=None if self.itl_bound_ms is None else self.itl_bound_ms / 1000,
            )
        return SchedulerConfig(
            max_num_seqs=self.max_num_seqs or 1024,
            max_num_batched_tokens=self.max_num_batched_tokens or 8192,
            scheduling_policy=self.scheduling_policy,
            long_prefill_token_threshold=self.long_prefill_token_threshold,
            watermark=self.watermark,
            preempts_for_rank=self.seat_preempt and by_priority,
        )

    def make_engine(self) -> SimEngine:
        noise = EngineFaults(self.faults).value("noise", 0.0) or 0.0
        return SimEngine(
            replace(PROFILES[self.profile], efficiency=self.efficiency),
            self.scheduler_config(),
            kv_tokens=self.kv_tokens,
            noise=noise,
            seed=self.seed,
        )
