"""A fault that was planted, and what followed from it: which requests ran again, and how soon the
node went on.

A request that runs again must have been in flight, or finished and uncommitted, when something was
killed: each repeated call is laid to the first fault after the call before it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from calls import Call, Repeat
from client import Watch
from installations import COMMIT_INTERVAL_S, WINDOW

SLOW_BEAT_S: Final = 0.8
"""What a commit's own writes, and the way of a signal, may take."""

COMMITS_SEEN: Final = 8
"""So many commits before a fault tell how long commits took then."""

KILLS: Final = ("serve", "worker", "engine")


@dataclass(slots=True)
class Fault:
    """`at` is when it struck, `mended_at` when what was killed had been started again or went on
    (monotonic seconds). Calls until `until` may be lost by it: those of a worker that has not yet
    heard that its lease is over. Counts and seconds are filled in when the round is over."""

    kind: str
    name: str
    at: float
    phase: str
    began_again_at: float = 0.0
    mended_at: float = 0.0
    until: float = 0.0
    is_for_others: bool = False
    """Whether other workers take over what this one held, once its leases are over."""
    again: int = 0
    one_beat: int = 0
    """Calls that were in flight, or asked within one commit before."""
    allowed: int = 0
    """The same with what a commit's own writes take on a busy machine."""
    resumed_s: float | None = None
    starved_s: float = 0.0
    """The part of the start in which what was started waited for a processor that others had."""

    def explains(self, repeat: Repeat) -> bool:
        """Whether the first call may have been lost by this."""
        if repeat.before.at - 0.01 > max(self.at, self.until) or self.at > repeat.after.at:
            return False
        return self.kind != "engine" or self.name == repeat.before.engine


def lay_repeats(
    found: Iterable[Repeat], faults: Sequence[Fault], calls: Sequence[Call], watch: Watch
) -> int:
    """Count at each fault what ran again because of it; the number that nothing explains.

    Where two may have done it, a kill has; where two kills may have, the first.
    """
    unexplained = 0
    laid: dict[int, list[Repeat]] = {place: [] for place in range(len(faults))}
    order = sorted(laid, key=lambda place: (faults[place].kind not in KILLS, faults[place].at))
    for repeat in found:
        place = next((each for each in order if faults[each].explains(repeat)), None)
        if place is None:
            unexplained += 1
        else:
            laid[place].append(repeat)
    for place, repeats in laid.items():
        _count(faults[place], repeats, calls, watch)
    return unexplained


def _count(fault: Fault, repeats: Sequence[Repeat], calls: Sequence[Call], watch: Watch) -> None:
    """What ran again because of the fault, and how much might have."""
    fault.again = len(repeats)
    before = [fault.at - call.at for call in calls]
    if fault.kind == "engine":
        fault.one_beat = fault.allowed = WINDOW
        return
    both = 2 * WINDOW
    fault.one_beat = both + sum(0 <= age_s <= COMMIT_INTERVAL_S for age_s in before)
    after_s = max(0.0, fault.until - fault.at)
    slow_s = COMMIT_INTERVAL_S + SLOW_BEAT_S + 2 * _beat_took_s(fault, calls, watch)
    fault.allowed = both + sum(-after_s <= age_s <= slow_s for age_s in before)
    if fault.is_for_others and repeats:
        fault.resumed_s = min(repeat.after.at for repeat in repeats) - fault.at


def _beat_took_s(fault: Fault, calls: Sequence[Call], watch: Watch) -> float:
    """The longest time between commits just before the fault, as a client saw them. What is lost
    is what was asked since the last commit but one: the last may have been under way."""
    begun = [calls[0].at] if calls and calls[0].at < fault.at else []
    seen = [at for at, what in watch.moves if what == "count" and at < fault.at]
    commits = [*begun, *seen, fault.at][-COMMITS_SEEN:]
    return max((later - earlier for earlier, later in pairwise(commits)), default=0.0)


def time_resumption(
    fault: Fault, faults: Sequence[Fault], calls: Sequence[Call], watch: Watch
) -> None:
    """From the start of what was killed to the first sign of life; none where nothing was left to
    do, or the next fault struck before.

    For a lost worker: from the loss to the first of its requests that another one runs.
    """
    if fault.is_for_others:
        return  # counted with its repeats
    since = fault.began_again_at
    if fault.kind == "engine":
        first = min(
            (call.at for call in calls if call.at > since and call.engine == fault.name),
            default=None,
        )
    elif fault.name == "serve":
        seen = watch.first_after(since, "count", "assembly", "dispatch", "download", "done")
        asked = min((call.at for call in calls if call.at > since), default=seen)
        first = min((at for at in (seen, asked) if at is not None), default=None)
    elif fault.kind == "api":
        first = watch.first_after(since)
    else:  # databases, disks, links: something was committed
        first = watch.first_after(since, "count", "assembly", "dispatch", "download")
    next_at = min((each.at for each in faults if each.at > since), default=float("inf"))
    if first is not None and first <= next_at:
        fault.resumed_s = first - since
