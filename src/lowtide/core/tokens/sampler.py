"""Token estimates for all the lines of an input file, at the price of measuring a few of them.

The validator asks for one line after another. Measuring a line costs about six times what the rest
of its validation costs, so every line of a small file is measured, and of a large one about
one line in TOKENS_SAMPLE_BYTES; a line between takes the tokens per byte of those measured lately.
Longer lines are the likelier to be measured, in proportion, which makes the sum unbiased. Lines
longer than that distance, or with an image inside, are always measured and stand for no other.
Invariant: the result depends on the lines alone, not on how the file was cut into blocks.
"""

from typing import Final

from lowtide import limits
from lowtide.core.tokens.features import features_of_line
from lowtide.core.tokens.token_model import TokenModel

_TOKENS_MAX: Final = 2**32 - 1  # what a plan record holds
_DATA_URL: Final = b";base64,"
_IMAGE_LINE_BYTES: Final = limits.TOKENS_IMAGE_LINE_BYTES  # looked up once, for the inner loop


class LineEstimator:
    """Estimates the prompt tokens of one model's lines of one file, in file order."""

    def __init__(self, model: TokenModel) -> None:
        self._model = model
        self._distance = 0  # bytes from one measured line to the next; grows with the file
        self._skipping = 0.0  # bytes still to pass before a short line is measured again
        self._ratio = 0.0  # tokens per byte of the short lines measured lately
        self._samples = 0
        self._draw = 0

    def estimate(self, line: bytes | memoryview, offset: int) -> int:
        """Prompt tokens of the line that begins `offset` bytes into the file; 1 at least."""
        length = len(line)
        is_short = length < self._distance and (length < _IMAGE_LINE_BYTES or not _has_image(line))
        if is_short:
            self._skipping -= length
            if self._skipping > 0.0:
                return int(self._ratio * length) + 1
        tokens = self._measure(line)
        if is_short:
            self._skipping = self._distance * self._jitter()
            self._samples = min(self._samples + 1, limits.TOKENS_RATIO_SAMPLES)
            self._ratio += (tokens / length - self._ratio) / self._samples
        beyond = max(0, offset - limits.TOKENS_MEASURED_BYTES)
        self._distance = min(limits.TOKENS_SAMPLE_BYTES, beyond // limits.TOKENS_SAMPLE_SHARE)
        return tokens

    def _measure(self, line: bytes | memoryview) -> int:
        tokens = self._model.estimate(features_of_line(line))
        return min(max(1, round(tokens)), _TOKENS_MAX)

    def _jitter(self) -> float:
        """A factor from 0.5 to 1.5, so that no order of lines falls in step with the samples.

        Multiples of the golden ratio: evenly spread, and the same for the same file.
        """
        self._draw = (self._draw + 0x9E3779B1) & 0xFFFFFFFF
        return 0.5 + self._draw / 2**32


def _has_image(line: bytes | memoryview) -> bool:
    """Whether a line may be mostly bytes that are no text."""
    return _DATA_URL in bytes(line)
