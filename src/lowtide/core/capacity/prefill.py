"""How many prompt tokens of batch calls an engine may have in its queue that it has not read yet.

Beside live traffic every long prompt in the queue is a delay for live users, so batch calls are let
through as the engine works them off: the next one goes out when no tokens are outstanding, or when
it fits the budget with those that are (scheduling.md section 3, `outp`). A watched call, one whose
first token is seen, has its prompt worked off at that instant, and while only watched calls are
outstanding, a few of them may be sent: so many keep the engine busy, and can be taken back in time.
What is unread together may meet in one step, so it is bounded by what a step takes: vLLM's default
at first, and less where live tokens come too slowly by far, down to one prompt at a time. Other
prompts are taken to be worked off at the best rate that the engine was seen to reach, and a quarter
more, so that the rate can be found at all. Pure; core/capacity/window.py steers the budget,
core/dispatch/dispatch.py asks before it sends.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall
from lowtide.core.capacity.prompt_parts import PromptParts

UNWATCHED_ENGINES = frozenset({"llamacpp"})
"""Kinds of engines at which streamed batch answers cost more than they tell: decision 8."""

_SEEK = 1.25


class PrefillPacer:
    """Paces the prompt tokens sent to one replica. Used only while `active`: without live
    traffic no prompt has to wait.
    """

    def __init__(self) -> None:
        self.active = False
        self.parts = PromptParts()
        self.is_needed = True
        """False while the engine itself keeps batch prompts from delaying live calls."""
        self.budget = float(limits.PREFILL_TOKENS_MAX)
        self.watched_max = float(limits.PREFILL_TOKENS_MAX)
        """Tokens of watched prompts that may be unread together; a single one may have more."""
        self.opens_at_s = float("-inf")
        """When the prompt that was last held back would fit, or is to be offered again."""
        self._rate_per_s: float | None = None
        self._learnt_at_s = 0.0
        self._outstanding = 0.0
        self._outstanding_at_s = 0.0
        self._watched = 0
        self._watched_calls = 0
        self._read_until_s = float("-inf")
        self._live_unread = 0
        self._live_tokens = 0
        self._live_read_at_s = float("-inf")

    @property
    def rate_per_s(self) -> float:
        """Prompt tokens a second that the engine is taken to work off."""
        best = limits.PREFILL_RATE_DEFAULT if self._rate_per_s is None else self._rate_per_s
        return _SEEK * best

    def outstanding_tokens(self, now_s: float) -> float:
        """Prompt tokens sent that the engine has not worked off."""
        drained = max(0.0, now_s - self._outstanding_at_s) * self.rate_per_s
        return max(0.0, self._outstanding - drained) + self._watched

    def size_to_send(self, left: int, least: int, now_s: float) -> int:
        """How many tokens of a prompt of which `left` are unread may be sent now: all, 0, or a part
        of at least `least`. If 0, `opens_at_s` says when to ask.
        """
        if not self.active:
            return left
        if not self.parts.is_active(now_s):
            return left if self.may_send(left, now_s) else 0
        if self._live_unread and now_s < self._live_read_at_s:
            self.opens_at_s = self._live_read_at_s
            return 0
        size = self.parts.size(left, least, self.outstanding_tokens(now_s))
        if not size:
            self.opens_at_s = now_s + limits.PREFILL_WAIT_S_MAX  # or at the next step, if it shows
        return size

    def may_send(self, tokens: int, now_s: float) -> bool:
        """Whether a prompt of that size may be sent now; if not, `opens_at_s` says when to ask."""
        outstanding = self.outstanding_tokens(now_s)
        if self._live_unread and now_s < self._live_read_at_s:
            self.opens_at_s = self._live_read_at_s
            return outstanding + tokens <= limits.PREFILL_TOKENS_MIN
        if (
            outstanding <= 0
            or outstanding + tokens <= self.budget
            or self._may_watch_more(tokens, outstanding)
        ):
            return True
        excess = min(outstanding, outstanding + tokens - self.budget)
        wait_s = min(limits.PREFILL_WAIT_S_MAX, excess / self.rate_per_s)
        self.opens_at_s = now_s + max(limits.TICK_S_MIN, wait_s)
        return False

    def sent(self, tokens: int, now_s: float, *, watched: bool = False) -> None:
        """Counts a prompt that is being sent. `watched`: the caller will say
        when its first token came.
        """
        self.parts.sent(tokens)
        if watched:
            self._watched += tokens
            self._watched_calls += 1
            return
        self._read_until_s = max(now_s, self._read_until_s) + tokens / self._best_rate
        self._outstanding = self.outstanding_tokens(now_s) - self._watched + tokens
        self._outstanding_at_s = now_s

    def read(self, tokens: int, now_s: float) -> None:
        """Counts the prompt of a watched call as read, or as one that will not be read any more."""
        self._watched -= tokens
        self._watched_calls -= 1
        if not self._live_unread:
            self.opens_at_s = now_s

    def _may_watch_more(self, tokens: int, outstanding: float) -> bool:
        if outstanding > self._watched or self._watched_calls >= limits.PREFILL_WATCHED_CALLS:
            return False
        return not self._watched_calls or self._watched + tokens <= self.watched_max

    @property
    def _best_rate(self) -> float:
        return self.rate_per_s / _SEEK

    def live_asked(self, tokens: int, now_s: float) -> None:
        """Counts a live call's prompt that is being sent: nothing is sent before
        it is read, or should be.
        """
        self.active = self.is_needed
        self._live_unread += 1
        self._live_tokens += tokens
        begins_s = max(now_s, self._live_read_at_s)
        self._live_read_at_s = min(
            begins_s + tokens / self._best_rate, now_s + limits.PREFILL_WAIT_S_MAX
        )
        self._read_until_s = max(now_s, self._read_until_s) + tokens / self._best_rate

    def live_answered(self, tokens: int, now_s: float) -> None:
        """Records that a live call has its first byte, or has ended."""
        self._live_unread -= 1
        self._live_tokens -= tokens
        if not self._live_unread:
            self.opens_at_s = self._live_read_at_s = now_s

    def take_unread(self, prompts: Sequence[int], now_s: float) -> list[int]:
        """Takes back the prompts, youngest first, that the engine has not finished reading. Returns
        how many tokens of each are unread.
        """
        left = max(0.0, self._read_until_s - now_s) * self._best_rate - self._live_tokens
        taken: list[int] = []
        for tokens in prompts:
            if left < 1:
                break
            taken.append(int(min(tokens, left)))
            left -= tokens
        if taken:
            self._outstanding = max(
                0.0, self.outstanding_tokens(now_s) - self._watched - sum(taken)
            )
            self._outstanding_at_s = now_s
            self._read_until_s -= sum(taken) / self._best_rate
        return taken

    def sync(self, waiting: float, reading: float, now_s: float) -> None:
        """Corrects the outstanding tokens by the engine's own count: `waiting` prompt
        tokens wait and up to `reading` are being read, so the estimate is put between the
        first and the sum of both.
        """
        least, most = waiting, waiting + reading
        self._outstanding = min(most, max(least, self.outstanding_tokens(now_s) - self._watched))
        self._outstanding_at_s = now_s
        ahead = self._live_tokens
        left_s = max(0.0, self._read_until_s - now_s)
        rate = self._best_rate
        left_s = min((most + ahead) / rate, max((least + ahead) / rate, left_s))
        self._read_until_s = now_s + left_s

    def learn(self, tokens: float, elapsed_s: float, now_s: float) -> None:
        """Records that the engine read that many prompt tokens, cached ones
        aside, in the last `elapsed_s`.
        """
        if tokens < limits.PREFILL_TOKENS_MIN or elapsed_s <= 0:
            return  # an idle engine shows nothing of what it can do
        rate = tokens / elapsed_s
        if self._rate_per_s is not None:
            age_s = max(0.0, now_s - self._learnt_at_s)
            rate = max(rate, self._rate_per_s * math.exp(-age_s / limits.PREFILL_RATE_MEMORY_S))
        outstanding = self.outstanding_tokens(now_s)
        self._outstanding, self._outstanding_at_s = max(0.0, outstanding - self._watched), now_s
        self._rate_per_s, self._learnt_at_s = rate, now_s

    def keep_within(self, wait_s: float) -> None:
        """Caps the budget so that all outstanding prompt tokens can be read within that time."""
        readable = max(float(limits.PREFILL_TOKENS_MIN), wait_s * self.rate_per_s)
        self.budget = min(self.budget, readable)

    def fit_steps(self, itl_p99_s: float, itl_slo_s: float, now_s: float) -> None:
        """Smaller parts of prompts in one step where steps are too long for live calls, and fewer
        whole ones where they are by far; more of them again where they are not.
        """
        self.parts.fit(itl_p99_s, itl_slo_s, now_s)
        if itl_p99_s > limits.PREFILL_STUTTER * itl_slo_s:
            self.watched_max = max(float(limits.PREFILL_TOKENS_MIN), 0.8 * self.watched_max)
        else:
            self.watched_max = min(float(limits.PREFILL_TOKENS_MAX), 1.03 * self.watched_max + 8)

    def increase(self) -> None:
        """Raises the budget a little: live traffic does well."""
        self.budget = min(float(limits.PREFILL_TOKENS_MAX), 1.03 * self.budget + 8)

    def decrease(self) -> None:
        """Lowers the budget: live traffic stutters."""
        self.budget = max(float(limits.PREFILL_TOKENS_MIN), 0.8 * self.budget)


def make_way(
    pacer: PrefillPacer, calls: Sequence[BatchCall], now_s: float, *, tells_prompts: bool
) -> list[tuple[int, int]]:
    """(place, tokens unread) of those of `calls` to take back for a live call, because their
    prompts are not read yet. `tells_prompts`: the engine tells how far it has read.
    """
    if pacer.parts.is_active(now_s):
        calls = [
            msgspec.structs.replace(call, stays=True)
            if pacer.parts.is_being_read(call.input_tokens, now_s - call.age_s)
            else call
            for call in calls
        ]
    young = sorted(range(len(calls)), key=lambda place: calls[place].age_s)
    back = beyond_the_least([(place, calls[place]) for place in reversed(young)])
    if tells_prompts:  # else what is unread is a guess, and work may be lost
        unknown = [n for n in young if calls[n].prefill_done is None and not calls[n].stays]
        left = pacer.take_unread([calls[place].input_tokens for place in unknown], now_s)
        back.extend(zip(unknown, left, strict=False))
    return back


def beyond_the_least(calls: Iterable[tuple[int, BatchCall]]) -> list[tuple[int, int]]:
    """(place, prompt tokens) of the calls, oldest first, that are known to be unread, without those
    that are read so soon that they delay no other call.
    """
    kept, back = 0, []
    for place, call in calls:
        if call.prefill_done is not False:
            continue
        if call.stays or kept + call.input_tokens <= limits.PREFILL_TOKENS_MIN:
            kept += call.input_tokens
        else:
            back.append((place, call.input_tokens))
    return back
