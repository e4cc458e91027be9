"""One request as the simulated engine sees it: what it asks for, and how far it has come.

A prompt is a sequence of pieces (segment, tokens): two prompts share as many tokens as their first
pieces agree, where (S, 100) and (S, 200) agree in 100. That describes a prompt of any length in
constant space; `http.tokenizer.pieces_of` makes pieces of real text, a block of tokens each.
The second half of the attributes belongs to the scheduler and to `kv`.
"""

import enum
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from lowtide.engine_sim.state.blocks import CacheNode

Piece = tuple[Hashable, int]


class State(enum.IntEnum):
    """The state of a request in its engine."""

    NEW = 0
    WAITING = 1
    PREFILLING = 2
    """It runs, and tokens that are known have no KV yet: the prompt, or all after a preemption."""
    DECODING = 3
    FINISHED = 4
    ABORTED = 5


@dataclass(slots=True, eq=False)
class SimRequest:
    """Asked of one engine, once. Compared by identity."""

    id: str | int
    pieces: Sequence[Piece]
    output_tokens: int
    """How many it generates, at least 1."""
    priority: int = 0
    """Lower goes first."""
    interactive: bool = False
    """Counted apart in the events of a step."""
    salt: Hashable = None
    """Requests share cached prefixes only with the same salt."""
    output_segment: Hashable = None
    """Names the generated tokens, for prompts that repeat them as a piece (a next turn)."""
    sequence: Sequence[Piece] | None = None
    """Prompt and generated tokens in pieces, where these do not part at the prompt's end."""

    prompt_tokens: int = field(init=False)
    state: State = field(default=State.NEW, init=False)
    arrived_at: float = field(default=0.0, init=False)
    scheduled_at: float | None = field(default=None, init=False)
    """First admission."""
    first_token_at: float | None = field(default=None, init=False)
    finished_at: float | None = field(default=None, init=False)
    stalled_at: float = field(default=0.0, init=False)
    """When it was preempted last."""
    cached_tokens: int = field(default=0, init=False)
    """Prompt tokens found in the cache at its first admission."""
    preemptions: int = field(default=0, init=False)

    number: int = field(default=0, init=False)
    """Order of arrival in its engine."""
    target: int = field(default=0, init=False)
    """Tokens that need KV before the next one can be sampled, while prefilling."""
    computed: int = field(default=0, init=False)
    """Tokens with KV, while prefilling."""
    made: int = field(default=0, init=False)
    """Generated tokens, while it is not decoding."""
    made_offset: int = field(default=0, init=False)
    """Generated tokens less the engine's completed steps, while decoding: needs no update."""
    finish_step: int = field(default=0, init=False)
    nodes: list[CacheNode] = field(default_factory=list, init=False)
    held: list[int] = field(default_factory=list, init=False)
    """Blocks of each of `nodes` that it uses, from the node's first."""
    doubles: int = field(default=0, init=False)
    """Blocks that it has beside one of the same content in `nodes`."""

    def __post_init__(self) -> None:
        if self.output_tokens < 1:
            raise ValueError("a request generates at least one token")
        self.prompt_tokens = sum(tokens for _, tokens in self.pieces)
        if self.prompt_tokens < 1:
            raise ValueError("a prompt has at least one token")
        self.target = self.prompt_tokens
