"""How long an engine's step takes, learned from the steps that it has run.

The time is fitted as a sum of costs that are never negative: one of the step itself, one of having
prompts in it, one per token that grows once arithmetic and not the weights' memory is what takes
long, one per decode, per KV token that decodes read, and per query-key pair of the prompts. So a
prediction never falls when work is added, which `step_budget` relies on. Old steps are forgotten,
and a single odd step counts little: only a run of them on one side changes the fit.

Imports nothing but the standard library and knows no engine: the scheduler class for vLLM takes
this very file into its wheel, and the simulated engine learns by it as well.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

KNEES: Final = (128, 256, 384, 512, 1024, 2048)
"""Tokens from which on each further one may cost more."""
TRAINED_STEPS: Final = 48
"""Steps after which predictions are used."""
BUCKETS: Final = (8, 32, 128, 256, 384, 512, 1024, 2048)
"""Steps are remembered by their tokens, up to each of these. What is learned of small steps must
not be forgotten while all are large, as they are once batch work fills each of them to one time."""
MEMORY_STEPS: Final = 1_000
"""The weight of a bucket's past, in steps."""
CLIP: Final = 4.0
"""Residuals count up to so many times their usual size ..."""
CLIP_LEAST: Final = 0.05
"""... and up to this share of the prediction in any case."""
RUN_STEPS: Final = 3
"""Large residuals of one sign count in full from the one after so many: the pace has changed."""
_SWEEPS: Final = 12
_SCALES: Final = (1.0, 1e-3, *(1e-3 for _ in KNEES), 1.0, 1e-2, 1e-5, 1e-6)
_FORGETS_EVERY: Final = 100


@dataclass(frozen=True, slots=True)
class StepShape:
    """What a step computes. `pairs` sums chunk * (context before it + chunk / 2) over prompts."""

    tokens: int = 0
    """All tokens: one for each decode, and the chunks of prompts."""
    decodes: int = 0
    context: int = 0
    """KV tokens that the decodes read."""
    pairs: float = 0.0

    def with_decode(self, context: int) -> "StepShape":
        return StepShape(self.tokens + 1, self.decodes + 1, self.context + context, self.pairs)

    def with_chunk(self, tokens: int, context: int) -> "StepShape":
        """The step with `tokens` more, of a prompt that has KV for `context` tokens."""
        pairs = self.pairs + tokens * (context + tokens / 2)
        return StepShape(self.tokens + tokens, self.decodes, self.context, pairs)


class StepTimeModel:
    """One for each engine. `predict` is never negative and never falls when a shape grows."""

    def __init__(self) -> None:
        self.steps = 0
        """Steps observed."""
        self.tokens_seen = 0
        """The most tokens of one of them."""
        self.costs = [0.0] * len(_SCALES)
        """Seconds per scaled unit, in the order of `_features`."""
        self.usual_error = CLIP_LEAST
        """Mean relative size of recent residuals."""
        self._buckets = [_Bucket() for _ in range(len(BUCKETS) + 1)]
        self._run = 0
        self._fits_at = 8

    @property
    def is_trained(self) -> bool:
        return self.steps >= TRAINED_STEPS

    @property
    def shortest_s(self) -> float:
        """Seconds that a step with a single decode takes: it reads the weights."""
        return self.predict(StepShape(1, 1))

    def predict(self, shape: StepShape) -> float:
        """Seconds; 0.0 before anything was learned."""
        costs, tokens = self.costs, shape.tokens
        time = costs[0] + costs[1] * tokens * 1e-3
        for place, knee in enumerate(KNEES, 2):
            if tokens <= knee:
                break
            time += costs[place] * (tokens - knee) * 1e-3
        return (
            time
            + (costs[-4] if shape.pairs else 0.0)
            + costs[-3] * shape.decodes * 1e-2
            + costs[-2] * shape.context * 1e-5
            + costs[-1] * shape.pairs * 1e-6
        )

    def observe(self, shape: StepShape, seconds: float) -> None:
        """Learns from a step that took so long. One without tokens or time says nothing."""
        if shape.tokens <= 0 or seconds <= 0:
            return
        self.steps += 1
        self.tokens_seen = max(self.tokens_seen, shape.tokens)
        bucket = self._buckets[bisect_left(BUCKETS, shape.tokens)]
        bucket.add(_features(shape), self._clipped(shape, seconds))
        if self.steps >= self._fits_at:
            self._fit()
            self._fits_at = self.steps + min(64, max(8, self.steps // 4))

    def _clipped(self, shape: StepShape, seconds: float) -> float:
        """The time to learn: an odd one is moved towards what was predicted."""
        if not self.is_trained:
            return seconds
        predicted = self.predict(shape)
        if predicted <= 0:
            return seconds
        error = seconds / predicted - 1
        bound = max(CLIP * self.usual_error, CLIP_LEAST)
        self.usual_error += 0.02 * (min(abs(error), bound) - self.usual_error)
        if abs(error) <= bound:
            self._run = 0
            return seconds
        side = 1 if error > 0 else -1
        self._run = self._run + side if self._run * side > 0 else side
        if abs(self._run) > RUN_STEPS:
            return seconds
        return predicted * (1 + side * bound)

    def _fit(self) -> None:
        """Least squares with no cost below 0, by coordinate descent from the costs so far."""
        costs = self.costs
        filled = [bucket for bucket in self._buckets if bucket.steps]
        grams = zip(*(bucket.gram for bucket in filled), strict=True)
        gram = [[sum(values) for values in zip(*rows, strict=True)] for rows in grams]
        for place, row in enumerate(gram):
            row[:place] = [gram[before][place] for before in range(place)]
        sums = [sum(values) for values in zip(*(bucket.sums for bucket in filled), strict=True)]
        for _ in range(_SWEEPS):
            for place, row in enumerate(gram):
                own = row[place]
                if own <= 0:
                    continue
                rest = sum(value * cost for value, cost in zip(row, costs, strict=True))
                step = (sums[place] - rest) / own
                costs[place] = max(0.0, costs[place] + step)


class _Bucket:
    """The steps of one size: sums over feature * feature and feature * time, each step weighted by
    1 / time squared, so that an error counts as a share of the time."""

    def __init__(self) -> None:
        self.steps = 0
        self.gram = [[0.0] * len(_SCALES) for _ in _SCALES]
        """The upper triangle alone."""
        self.sums = [0.0] * len(_SCALES)

    def add(self, features: list[float], seconds: float) -> None:
        self.steps += 1
        weight = 1 / (seconds * seconds)
        for place, value in enumerate(features):
            if value:
                share, row = weight * value, self.gram[place]
                for other in range(place, len(features)):
                    row[other] += share * features[other]
                self.sums[place] += share * seconds
        if self.steps % _FORGETS_EVERY == 0:
            self._forget()

    def _forget(self) -> None:
        factor = MEMORY_STEPS / (MEMORY_STEPS + _FORGETS_EVERY)
        self.gram = [[value * factor for value in row] for row in self.gram]
        self.sums = [value * factor for value in self.sums]


def _features(shape: StepShape) -> list[float]:
    tokens = shape.tokens
    values = (
        1.0,
        float(tokens),
        *(float(max(0, tokens - knee)) for knee in KNEES),
        1.0 if shape.pairs else 0.0,
        float(shape.decodes),
        float(shape.context),
        shape.pairs,
    )
    return [value * scale for value, scale in zip(values, _SCALES, strict=True)]
