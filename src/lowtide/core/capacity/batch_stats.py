"""What a replica's own batch calls are like: prompts, answers, pace, and the KV that one holds.

Learnt from each answer's usage and from the engine's counters; the window controller asks how much
memory a call takes on average. Pure; the cost per answer is a logarithm and a few additions.
"""

from collections.abc import Iterable, Sequence

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, MetricsDelta
from lowtide.core.capacity.output_lengths import OutputLengths

_PACE_TOKENS_MIN = 16  # a shorter answer's time says more about its prompt
_PACE_MEMORY = 0.05
_BLINK_S = 0.001  # a shorter time says nothing about an engine, and keeps paces finite


class BatchStats:
    """Running statistics of a replica's batch calls: prompt and answer
    lengths, tokens per second.
    """

    def __init__(self) -> None:
        self.lengths = OutputLengths()
        self._pace = 0.0
        self._engine_pace = 0.0
        self._ran = 0
        self._prompts = 0.0
        self._prompt_tokens = 0.0
        self._read_since = 0

    def finished(
        self, input_tokens: int, cached_tokens: int, output_tokens: int, elapsed_s: float
    ) -> None:
        """Records a call that was answered after `elapsed_s`. Cached prompt
        tokens are shared, not held.
        """
        self.lengths.finished(output_tokens)
        if self._prompts >= limits.LENGTH_MEMORY:
            self._prompts, self._prompt_tokens = self._prompts / 2, self._prompt_tokens / 2
        self._prompts += 1
        self._prompt_tokens += input_tokens - cached_tokens
        self._read_since += input_tokens - cached_tokens
        if output_tokens >= _PACE_TOKENS_MIN:
            pace = output_tokens / max(_BLINK_S, elapsed_s)
            self._pace += (pace - self._pace) * (_PACE_MEMORY if self._pace else 1.0)

    def polled(self, change: MetricsDelta, running: int | None) -> None:
        """Records the tokens that the engine generated since the last poll, shared
        among the calls that it ran.

        Of two polls the one that saw more counts: a wave of answers may have just ended.
        """
        ran, self._ran = max(self._ran, running or 0), running or 0
        if ran and change.generation_tokens > 0 and change.elapsed_s >= _BLINK_S:
            pace = change.generation_tokens / change.elapsed_s / ran
            self._engine_pace += (pace - self._engine_pace) * (0.2 if self._engine_pace else 1.0)

    def take_read(self) -> int:
        """Prompt tokens of the calls that finished since the last time."""
        tokens, self._read_since = self._read_since, 0
        return tokens

    @property
    def known(self) -> float:
        """The number of finished calls that the lengths rest on; older ones count less."""
        return self.lengths.count

    @property
    def pace(self) -> float | None:
        """Tokens a second of one call; None while nothing is known."""
        return self._engine_pace or self._pace or None

    @property
    def token_gap_s(self) -> float | None:
        """Seconds from token to token as batch answers show it: waiting included, so never too
        short. None while none finished.
        """
        return 1.0 / self._pace if self._pace else None

    def output_so_far(self, calls: Iterable[BatchCall]) -> Iterable[float]:
        """Tokens that each call is likely to have written."""
        pace = self.pace or limits.PACE_DEFAULT
        return (pace * call.age_s for call in calls)

    def mean_held(self, calls: Sequence[BatchCall]) -> float | None:
        """KV tokens that a call holds on average over its life; None while nothing is known.

        E[in] - E[hit] + E[out²] / 2E[out], with prompts from what engines reported, or from the
        estimates while few have finished.
        """
        stats = self.lengths.stats(self.output_so_far(calls))
        if stats is None:
            return None
        if self._prompts >= limits.LENGTHS_MIN or not calls:
            prompt = self._prompt_tokens / max(1.0, self._prompts)
        else:
            prompt = sum(call.input_tokens for call in calls) / len(calls)
        return max(1.0, prompt + stats.mean_held)
