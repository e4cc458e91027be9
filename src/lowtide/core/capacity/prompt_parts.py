"""How much of a long batch prompt goes to an engine at once, beside live calls.

A step lasts as long as the prompts in it take to read, and live calls wait for it. So long prompts
are sent in parts: each but the last is a call of its own with the prompt's beginning, and the
engine's prefix cache keeps what was read. Each step gets one part at most. That a step has ended is
seen by the streams of the batch's own answers: one that has spoken since the last step ended speaks
again. Parts are sent from the first reading on whose steps are too long for live calls, and for
PARTS_HOLD_S since the last such one; they shrink while there are such, down to what an engine reads
at next to no cost, as it has to read the weights for each step. Pure; core/capacity/prefill.py asks
for each prompt, core/bodies/prompt_part.py cuts it.
"""

from typing import Final

from lowtide import limits

_LEARN: Final = 1 / 16
_COUNTED_MAX: Final = 8.0
"""A single odd prompt, as one that the engine cuts off, tells no more than this factor."""


class PromptParts:
    """The parts that one engine is sent. `is_possible` is set at each poll."""

    def __init__(self) -> None:
        self.is_possible = False
        """Whether the engine is known to keep what it has read, and the operator allows parts."""
        self.tokens = float(limits.PART_TOKENS_START)
        """The most that a part has, and so all batch prompts in one step, as the engine counts."""
        self._counted = 1.0
        """Tokens by the engine's count for one of our estimate, of which all else here is."""
        self._has_counted = False
        self._until_s = float("-inf")
        self._sent = 0.0
        self._step_ended_at_s = float("-inf")
        self._spoke: set[int] = set()
        self._refused = 0
        self._pause_until_s = float("-inf")

    def is_active(self, now_s: float) -> bool:
        """Whether prompts are to be sent in parts now."""
        return self.is_possible and self._pause_until_s <= now_s < self._until_s

    def fit(self, itl_p99_s: float, itl_slo_s: float, now_s: float) -> None:
        """Smaller parts while steps are too long for live calls, larger ones while they are not."""
        if itl_p99_s > itl_slo_s:
            self._until_s = now_s + limits.PARTS_HOLD_S
            self.tokens = max(float(limits.PART_TOKENS_MIN), 0.9 * self.tokens)
        else:
            self.tokens = min(float(limits.PART_TOKENS_MAX), 1.02 * self.tokens + 4)

    def size(self, left: int, least: int, unread: float) -> int:
        """How many tokens of a prompt, of which `left` are unread, may be sent now: all of them, or
        at least `least`; 0 for none. `unread`: those of other batch prompts.
        """
        tokens = self.tokens / self._counted
        if unread > 0:
            owed_max = limits.PREFILL_WATCHED_CALLS * tokens
            free = min(tokens - self._sent, owed_max - unread)
        else:
            free = max(tokens, float(least))
        if left <= free:
            return left
        fits_a_step = left <= tokens
        if fits_a_step or free < max(least, limits.PART_TOKENS_LEAST / self._counted):
            return 0  # the next step has room for it, or for a piece that is worth a call
        return int(free)

    def sent(self, tokens: int) -> None:
        """Counts what is being sent."""
        self._sent += tokens

    def token_seen(self, stream: int, now_s: float) -> bool:
        """Records that the answer `stream` went on. True: so a step has ended."""
        if stream not in self._spoke and len(self._spoke) < limits.WINDOW_MAX:
            self._spoke.add(stream)
            return False
        self._spoke = {stream}
        self._sent, self._step_ended_at_s = 0.0, now_s
        return True

    def is_being_read(self, tokens: int, sent_at_s: float) -> bool:
        """Whether a prompt of so many unread tokens is in the step that runs now, so that taking it
        back would only have it read again.
        """
        part_max = limits.PART_TOKENS_MAX / self._counted
        return sent_at_s < self._step_ended_at_s and tokens <= part_max

    def counted(self, estimated: int, counted: int) -> None:
        """Records how many tokens the engine counted in a prompt: estimates of an unknown tokenizer
        may be off by a factor, which would make parts too long or too short.
        """
        if estimated <= 0 or counted <= 0:
            return
        share = _LEARN if self._has_counted else 1.0
        seen = min(_COUNTED_MAX, max(1 / _COUNTED_MAX, counted / estimated))
        self._counted += share * (seen - self._counted)
        self._has_counted = True

    def was_read(self) -> None:
        """Records that the engine answered a part."""
        self._refused = 0

    def was_refused(self, now_s: float) -> None:
        """Records that the engine refused a part. After a few in a row none are sent for a time."""
        self._refused += 1
        if self._refused >= limits.PARTS_REFUSED:
            self._refused, self._pause_until_s = 0, now_s + limits.PARTS_HOLD_S


def least_part(tokens: int) -> int:
    """The fewest tokens of a part of a prompt with so many, so that it has PARTS_MAX at most."""
    return max(1, -(-tokens // limits.PARTS_MAX))
