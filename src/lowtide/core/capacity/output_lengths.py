"""How long answers are, while most of them are still being written.

What has finished early in a batch is what was short; to believe it would open the window far too
wide. So the calls still in flight count as well, each with the tokens that it has so far, as
censored samples of Kaplan and Meier's estimator, over 80 buckets a quarter octave wide
(scheduling.md section 2(a)). Pure; the window controller feeds and asks it. An estimate costs 80
steps, and one more for each age given.
"""

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from lowtide.limits import LENGTH_MEMORY

BUCKETS: Final = 80
_PER_OCTAVE: Final = 4


def middle_of(bucket: int) -> float:
    """What a length in the bucket is taken for; the last one begins above 880,000 tokens."""
    return float(2.0 ** ((bucket + 0.5) / _PER_OCTAVE))


_MIDDLES: Final = tuple(map(middle_of, range(BUCKETS)))


class LengthStats(msgspec.Struct, frozen=True):
    """`mean` is E[out], `mean_square` E[out^2]; both in tokens."""

    mean: float
    mean_square: float

    @property
    def mean_held(self) -> float:
        """Output tokens that a call in flight holds on average: E[out^2] / (2 E[out])."""
        return self.mean_square / (2 * self.mean)


class OutputLengths:
    """Output lengths of one replica's own calls."""

    def __init__(self) -> None:
        self._finished = [0.0] * BUCKETS
        self._until_fade = LENGTH_MEMORY
        self.count = 0.0
        """Weight of the finished calls that are remembered."""

    def finished(self, output_tokens: int) -> None:
        """Records a complete answer. Once LENGTH_MEMORY more have come, older ones count half."""
        self._finished[bucket_of(output_tokens)] += 1.0
        self.count += 1.0
        self._until_fade -= 1
        if not self._until_fade:
            self._until_fade = LENGTH_MEMORY
            self._finished = [weight / 2 for weight in self._finished]
            self.count /= 2

    def stats(self, ages: Iterable[float] = ()) -> LengthStats | None:
        """Mean and mean square of the output lengths in tokens; None when nothing is known.

        `ages`: the tokens so far of each call in flight, which is known to become longer than that.
        """
        mean = square = 0.0
        for length, share in self._distribution(ages):
            mean += share * length
            square += share * length * length
        return LengthStats(mean, square) if mean else None

    def _distribution(self, ages: Iterable[float]) -> list[tuple[float, float]]:
        """(length, share) with shares that sum to one; empty when nothing is known.

        The share of answers whose end was not seen is put at twice the longest age: lengths have
        heavy tails, so what has lasted so long is expected to last as long again.
        """
        flying = [0.0] * BUCKETS
        longest = 0.0
        for age in ages:
            flying[bucket_of(age)] += 1.0
            longest = max(longest, age)
        at_risk = self.count + math.fsum(flying)
        survives, shares = 1.0, []
        for middle, ended, censored in zip(_MIDDLES, self._finished, flying, strict=True):
            if at_risk <= 1e-9:
                break
            if ended:
                died = survives * min(1.0, ended / at_risk)
                shares.append((middle, died))
                survives -= died
            at_risk -= ended + censored  # who is censored in a bucket has outlived its ends
        if survives > 1e-9 and (shares or longest):
            shares.append((max(2.0 * longest, shares[-1][0] if shares else 1.0), survives))
        return shares


def bucket_of(tokens: float) -> int:
    """The bucket of a length; 0 and 1 share the first, all above the last bound the last."""
    if tokens <= 1:
        return 0
    return min(BUCKETS - 1, int(_PER_OCTAVE * math.log2(tokens)))
