"""What no schedule can beat: lower bounds on the time of a set of requests on K replicas.

scheduling.md section 5. With S steps in all, their GEMM time is at least S * G(N / S) because G is
convex, and attention depends on the set of requests only. The bound assumes perfect prefix hits and
perfect packing of the KV cache, which equal lengths cannot reach: report it beside the best
schedule that was found. For interactive and batch work together it ignores latency.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from lowtide.engine_sim.profiles import Profile
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig
from lowtide.engine_sim.state.requests import SimRequest

_SEARCH_STEPS: Final = 200
_BISECTIONS: Final = 40


@dataclass(frozen=True, slots=True)
class Demand:
    """What a set of requests needs, however it is scheduled."""

    tokens: float = 0.0
    """N: prompt tokens with each cached block counted once, and every generated token but the
    first, which comes with the prompt."""
    generated: float = 0.0
    reads: float = 0.0
    """R: KV tokens read by decodes."""
    occupancy: float = 0.0
    """R less what prompts share: KV tokens times steps."""
    pairs: float = 0.0
    """P: query and key pairs of prompts."""
    decoding: bool = False
    longest: int = 0

    def plus(self, other: "Demand", share: float = 1.0) -> "Demand":
        """The demand of both sets, the other one in part."""
        return Demand(
            tokens=self.tokens + share * other.tokens,
            generated=self.generated + share * other.generated,
            reads=self.reads + share * other.reads,
            occupancy=self.occupancy + share * other.occupancy,
            pairs=self.pairs + share * other.pairs,
            decoding=self.decoding or (share > 0 and other.decoding),
            longest=max(self.longest, other.longest if share >= 1 else 0),
        )


def demand_of(requests: Sequence[SimRequest], *, block_tokens: int = 16) -> Demand:
    """The demand of the requests, in one pass; constant space for each distinct
    piece of a prefix.
    """
    trie: dict[tuple[int, int, Hashable], tuple[int, int]] = {}
    tokens = generated = reads = pairs = occupancy = 0.0
    decoding, longest = False, 0
    for request in requests:
        size, out = request.prompt_tokens, request.output_tokens
        shared = _shared_blocks(request, trie, block_tokens) * block_tokens
        further = out - 1
        read = further * size + further * (further + 1) / 2
        tokens += size - shared + further
        generated += out
        reads += read
        occupancy += read - further * shared
        pairs += (size - shared) * (shared + (size - shared) / 2)
        decoding = decoding or further > 0
        longest = max(longest, out)
    return Demand(tokens, generated, reads, occupancy, pairs, decoding, longest)


def makespan_bound(
    demand: Demand, profile: Profile, config: SchedulerConfig, *, replicas: int = 1
) -> float:
    """Seconds that K replicas need at least."""
    if not demand.generated:
        return 0.0
    steps_min = (
        max(
            demand.occupancy / profile.kv_tokens,
            demand.generated / config.max_num_seqs,
            demand.tokens / config.max_num_batched_tokens,
        )
        / replicas
    )
    steps_min = max(steps_min, demand.longest, 1.0)
    each = profile.launch + profile.logits + profile.all_reduce
    if demand.decoding:
        each += profile.decode_attention
    share = demand.tokens / replicas

    def of_steps(steps: float) -> float:
        return steps * each + steps * profile.gemm_ms(share / steps)

    fixed = (
        profile.decode_attention_ns * 1e-6 * demand.reads
        + profile.prefill_attention_ns * 1e-6 * demand.pairs
        + (profile.logits_token + profile.launch_request) * demand.generated
        + profile.all_reduce_token * demand.tokens
    ) / replicas
    best = _least(of_steps, steps_min, max(steps_min, share))
    return (best + fixed) * 1e-3 / profile.efficiency


def batch_bound(
    interactive: Demand,
    batch: Demand,
    horizon_s: float,
    profile: Profile,
    config: SchedulerConfig,
    *,
    replicas: int = 1,
) -> float:
    """How many times the batch's volume fits beside the interactive one into the horizon, at most.

    By bisection; 0.0 when the interactive requests alone do not fit.
    """

    def fits(volume: float) -> bool:
        both = interactive.plus(batch, volume)
        return makespan_bound(both, profile, config, replicas=replicas) <= horizon_s

    if not fits(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while fits(high):
        low, high = high, high * 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _shared_blocks(
    request: SimRequest,
    trie: dict[tuple[int, int, Hashable], tuple[int, int]],
    block_tokens: int,
) -> int:
    """Blocks of its prompt that were in the trie; afterwards all of them are.

    A node is (parent, position, segment) and knows its number and how many blocks it has.
    """
    node = position = shared = 0
    matches = True
    limit = (request.prompt_tokens - 1) // block_tokens
    for segment, tokens in request.pieces:
        salted = (request.salt, segment) if position == 0 else segment
        key = (node, position, salted)
        end = position + tokens
        wanted = end // block_tokens - position // block_tokens
        number, have = trie.get(key, (len(trie) + 1, 0))
        trie[key] = (number, max(have, wanted))
        if matches:
            shared += min(have, wanted)
            matches = have >= wanted
        node, position = number, end
    return min(shared, limit)


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """The least value of a convex function between two arguments."""
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(_SEARCH_STEPS):
        if high - low <= 1e-6 * high:
            break
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if function(left) <= function(right):
            high = right
        else:
            low = left
    return min(function(low), function(high))
