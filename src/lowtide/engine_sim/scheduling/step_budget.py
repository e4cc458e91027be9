"""Which batch work a step may have beside live calls: one decision, without clock or I/O.

`decide` is asked before each step by the engine's scheduler: the simulated one here, and the one of
the scheduler class for vLLM, whose wheel holds this very file. Live work always has the whole step.
Beside it batch decodes run, those first that sat out longest, and then batch prompts, each as far
as the step's predicted time stays under a limit. Without a live call nothing is decided, and the
engine does what it always does.

Invariants: the prediction is over the limit only by what must not wait longer; no batch decode sits
out for longer than `hold_max_s` and the step after; batch prompts get tokens at least every
`hold_max_s`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from .step_time import StepShape, StepTimeModel

TOLERANCE: Final = 1.75
"""Chosen on the simulated 8B model: with it live p99 is at most 1.15 (first token) and 1.3 times
(between tokens) that of no batch at 10 and 25 live calls a second, see docs/live-traffic.md."""

ALONE_EVERY_STEPS: Final = 200
"""One step in so many is left to the live calls that generate: how long they take alone cannot be
learned from steps that the batch fills."""


@dataclass(frozen=True, slots=True)
class StepLimits:
    """What an operator sets, and the engine's own step size."""

    tokens_max: int
    """Tokens of one step: vLLM's max_num_batched_tokens."""
    tolerance: float = TOLERANCE
    """How long a step with live calls may become for the batch's sake: what those of them that
    generate take alone, and so many times the engine's shortest step, less one, on top."""
    bound_s: float | None = None
    """The same in seconds, instead of `tolerance`."""
    stretch: float = 1.0
    """A step whose live work alone is longer than the bound may become longer by this factor."""
    hold_max_s: float = 0.5
    chunk_min: int = 16
    """A prompt gets no chunk smaller than this, unless it needs no more."""
    overdue_tokens: int = 256
    """Tokens of a batch prompt in a step, over the limit, when the batch's prompts had none for
    `hold_max_s`."""
    cold_tokens: int = 512
    """Tokens of batch prompts in a step, while the step's time cannot be predicted yet."""

    def __post_init__(self) -> None:
        bound_s = 1.0 if self.bound_s is None else self.bound_s
        if self.tokens_max < 1 or bound_s <= 0 or self.hold_max_s <= 0:
            raise ValueError("tokens_max, bound_s and hold_max_s must be above 0")
        if self.tolerance < 1 or self.stretch < 1:
            raise ValueError("tolerance and stretch must be at least 1")

    def step_s(self, live: StepShape, model: StepTimeModel) -> float:
        """The bound in seconds on a step with this live work."""
        if self.bound_s is not None:
            return self.bound_s
        shortest_s = model.shortest_s
        generating_s = model.predict(StepShape(live.decodes, live.decodes, live.context))
        return max(shortest_s, generating_s) + (self.tolerance - 1) * shortest_s


@dataclass(frozen=True, slots=True)
class BatchDecode:
    """A batch request that generates: its KV tokens, and seconds since it had a token."""

    context: int
    idle_s: float


@dataclass(slots=True)
class PromptBudget:
    """Deals out what is left of a step to batch prompts, in the order in which they ask."""

    shape: StepShape
    """The step as granted so far."""
    limit_s: float
    tokens_left: int
    overdue_tokens: int
    """May be granted over the limit, as batch prompts had nothing for too long."""
    model: StepTimeModel
    chunk_min: int

    def grant(self, wanted: int, context: int) -> int:
        """Tokens, at most `wanted`, of a prompt with KV for `context`; 0: it sits out."""
        most = min(wanted, self.tokens_left)
        if most <= 0:
            return 0
        tokens = max(self._fitting(most, context), min(most, self.overdue_tokens))
        if tokens < min(self.chunk_min, wanted):
            return 0
        self.tokens_left -= tokens
        self.overdue_tokens = 0
        self.shape = self.shape.with_chunk(tokens, context)
        return tokens

    def charge(self, tokens: int, context: int) -> None:
        """Takes the chunk of a live prompt that was not in `live` off the budget."""
        self.tokens_left -= tokens
        self.shape = self.shape.with_chunk(tokens, context)

    def _fitting(self, most: int, context: int) -> int:
        """The largest chunk that keeps the predicted time within the limit."""
        return _largest(most, lambda tokens: self._takes(tokens, context) <= self.limit_s)

    def _takes(self, tokens: int, context: int) -> float:
        return self.model.predict(self.shape.with_chunk(tokens, context))


@dataclass(frozen=True, slots=True)
class Decision:
    """`held`: places of the batch decodes that sit out this step. `prompts` None: unchanged, the
    step is the engine's own to fill."""

    held: frozenset[int] = frozenset()
    prompts: PromptBudget | None = None

    @property
    def is_unchanged(self) -> bool:
        return self.prompts is None


UNCHANGED = Decision()


def decide(
    live: StepShape | None,
    decodes: Sequence[BatchDecode],
    prompts_idle_s: float,
    model: StepTimeModel,
    limits: StepLimits,
) -> Decision:
    """The batch's part of the next step.

    `live`: all that live calls want of it, those that wait to be admitted included, cut to the
    step's size; None: there is no live call. `prompts_idle_s`: since a batch prompt had tokens.
    """
    if live is None:
        return UNCHANGED
    alone_s, bound_s = model.predict(live), limits.step_s(live, model)
    is_alone = live.tokens == live.decodes > 0 and model.steps % ALONE_EVERY_STEPS == 0
    is_crowded = is_alone or alone_s > bound_s
    limit_s = alone_s if is_alone else max(bound_s, limits.stretch * alone_s)
    room = max(0, limits.tokens_max - live.tokens)
    if not model.is_trained:
        shape, held = _all(live, decodes, room)
        limit_s, room = math.inf, min(room, limits.cold_tokens)
    else:
        shape, held = _chosen(live, decodes, model, limits, limit_s, is_crowded)
        room = min(room, _explored(model, limits) - live.tokens)
    left = max(0, room - (shape.decodes - live.decodes))
    overdue = limits.overdue_tokens if prompts_idle_s >= limits.hold_max_s else 0
    budget = PromptBudget(shape, limit_s, left, overdue, model, limits.chunk_min)
    return Decision(held, budget)


def _all(
    live: StepShape, decodes: Sequence[BatchDecode], room: int
) -> tuple[StepShape, frozenset[int]]:
    shape = live
    for decode in decodes[:room]:
        shape = shape.with_decode(decode.context)
    return shape, frozenset(range(min(room, len(decodes)), len(decodes)))


def _chosen(
    live: StepShape,
    decodes: Sequence[BatchDecode],
    model: StepTimeModel,
    limits: StepLimits,
    limit_s: float,
    is_crowded: bool,
) -> tuple[StepShape, frozenset[int]]:
    """The decodes that run: longest idle first, while they fit, and those that must."""
    order = sorted(range(len(decodes)), key=lambda place: -decodes[place].idle_s)
    contexts = list(accumulate((decodes[place].context for place in order), initial=live.context))

    def shape(count: int) -> StepShape:
        tokens, ran = live.tokens + count, live.decodes + count
        return StepShape(tokens, ran, contexts[count], live.pairs)

    most = min(len(order), max(0, limits.tokens_max - live.tokens))
    fitting = _largest(most, lambda count: model.predict(shape(count)) <= limit_s)
    idle_s = [decodes[place].idle_s for place in order]
    takes_s = max(model.predict(live), limit_s)
    count = max(fitting, _due(idle_s, takes_s, limits.hold_max_s, is_crowded))
    return shape(count), frozenset(order[count:])


def _explored(model: StepTimeModel, limits: StepLimits) -> int:
    """Tokens up to which predictions are taken: twice what a step had so far, as a cost that was
    never met cannot have been learned."""
    return max(limits.cold_tokens, 2 * model.tokens_seen)


def _due(idle_s: Sequence[float], step_s: float, hold_max_s: float, is_crowded: bool) -> int:
    """How many of those that sat out longest must run now, though they break the limit.

    They are spread over the second half of what is allowed, so that they do not all come due in one
    step; where live work alone takes the step over its bound, over the last quarter, as live calls
    have a shorter step soon.
    """
    spread_s = hold_max_s / (4 if is_crowded else 2)
    late = sum(idle >= hold_max_s - spread_s for idle in idle_s)
    overdue = sum(idle + step_s >= hold_max_s for idle in idle_s)
    return max(overdue, math.ceil(late * min(1.0, step_s / spread_s)))


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest count up to `most` that fits, where every smaller one does as well; or 0."""
    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
