"""How long one step of an engine takes: measured kernel costs of five model and GPU pairs.

The constants are sums over the layers of measured GEMM, attention and all-reduce times
(scheduling.md section 4.2 names the tables); `t0` and `tb`, the CPU's part, and the KV capacity
are derived. Nothing here may be bent to fit a result: `efficiency` is the one knob for engines
that are older or slower than the measured kernels.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class StepLoad:
    """What one step computes: the arguments of its cost."""

    tokens: int = 0
    """All tokens of the step: one for each decode, and the chunks of prompts."""
    decodes: int = 0
    prefills: int = 0
    sampled: int = 0
    """Requests that get a token from this step."""
    context: int = 0
    """KV tokens that the decodes read, their own included."""
    pairs: float = 0.0
    """Query and key pairs of the chunks: the sum of q * (context + q / 2)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One model on one kind of GPU. Times in milliseconds; `ca`, `cp` in nanoseconds."""

    name: str
    model: str
    gemm_floor: float
    """g0: the weights are read however few the tokens."""
    gemm_small: float
    """g1, per token while reading weights is what takes long."""
    gemm_large: float
    """g2, per token once arithmetic is."""
    logits: float
    logits_token: float
    decode_attention: float
    decode_attention_ns: float
    """Per KV token."""
    prefill_attention: float
    prefill_attention_ns: float
    """Per query and key pair."""
    all_reduce: float
    all_reduce_token: float
    launch: float
    """t0: CPU time of a step that does not overlap with the GPU."""
    launch_request: float
    """tb, per request in the step."""
    kv_tokens: int
    gpus: int = 1
    efficiency: float = 1.0
    """0.85 is about right for engines of 2024, 1.0 for the measured ones."""

    def gemm_ms(self, tokens: float) -> float:
        """The milliseconds of a step of `tokens`; convex in them, which the bounds rely on."""
        return max(self.gemm_floor + self.gemm_small * tokens, self.gemm_large * tokens)

    def step_ms(self, load: StepLoad) -> float:
        """scheduling.md section 4.2."""
        time = (
            self.launch
            + self.launch_request * (load.decodes + load.prefills)
            + self.gemm_ms(load.tokens)
            + self.logits
            + self.logits_token * load.sampled
            + self.all_reduce
            + self.all_reduce_token * load.tokens
        )
        if load.decodes:
            time += self.decode_attention + self.decode_attention_ns * 1e-6 * load.context
        if load.pairs:
            time += self.prefill_attention + self.prefill_attention_ns * 1e-6 * load.pairs
        return time / self.efficiency


PROFILES: Final = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                name="8b-h100", model="meta-llama/Llama-3.1-8B-Instruct",
                gemm_floor=5.4, gemm_small=0.0041, gemm_large=0.0178,
                logits=0.36, logits_token=0.0011,
                decode_attention=0.5, decode_attention_ns=40.5,
                prefill_attention=0.3, prefill_attention_ns=0.79,
                all_reduce=0.0, all_reduce_token=0.0,
                launch=0.6, launch_request=0.004, kv_tokens=430_000,
            ),
            Profile(
                name="8b-a100", model="meta-llama/Llama-3.1-8B-Instruct",
                gemm_floor=9.6, gemm_small=0.0150, gemm_large=0.0525,
                logits=0.65, logits_token=0.0030,
                decode_attention=0.7, decode_attention_ns=80.0,
                prefill_attention=0.4, prefill_attention_ns=2.95,
                all_reduce=0.0, all_reduce_token=0.0,
                launch=0.6, launch_request=0.004, kv_tokens=430_000,
            ),
            Profile(
                name="70b-tp4-h100", model="meta-llama/Llama-3.3-70B-Instruct",
                gemm_floor=12.6, gemm_small=0.0075, gemm_large=0.0430,
                logits=0.18, logits_token=0.0004,
                decode_attention=1.0, decode_attention_ns=27.5,
                prefill_attention=0.8, prefill_attention_ns=0.98,
                all_reduce=0.9, all_reduce_token=0.0145,
                launch=0.8, launch_request=0.004, kv_tokens=460_000, gpus=4,
            ),
            Profile(
                name="8b-fp8-h100", model="nvidia/Llama-3.1-8B-Instruct-FP8",
                gemm_floor=3.3, gemm_small=0.0053, gemm_large=0.0127,
                logits=0.36, logits_token=0.0011,
                # 25 ns were measured; 22 is the one constant adjusted to published throughput
                decode_attention=0.9, decode_attention_ns=22.0,
                prefill_attention=0.3, prefill_attention_ns=0.60,
                all_reduce=0.0, all_reduce_token=0.0,
                launch=0.6, launch_request=0.004, kv_tokens=1_000_000,
            ),
            Profile(
                name="70b-fp8-tp2-h100", model="nvidia/Llama-3.3-70B-Instruct-FP8",
                gemm_floor=14.0, gemm_small=0.0145, gemm_large=0.0573,
                logits=0.25, logits_token=0.0006,
                decode_attention=1.6, decode_attention_ns=30.0,
                prefill_attention=0.8, prefill_attention_ns=2.2,
                all_reduce=0.6, all_reduce_token=0.0122,
                launch=0.8, launch_request=0.004, kv_tokens=470_000, gpus=2,
            ),
        )
    }
)  # fmt: skip
"""The profiles by name; H100 and A100 have 80 GB, `tpN` spreads the model over N of them."""
