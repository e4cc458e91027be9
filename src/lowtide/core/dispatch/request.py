"""One request of a leased chunk, and the chunk at work: the records of
core/dispatch/dispatch.py.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.batches.chunk import ChunkKey, ChunkLease
from lowtide.core.dispatch.place_turns import PlaceShare
from lowtide.core.dispatch.replica import Replica

_NOWHERE: Final = PlaceShare()
"""The share of requests that were not taken yet."""


class Request(msgspec.Struct, eq=False):
    """One request of a leased chunk. `data` is its line's bytes; `index` its bit in the chunk;
    `tokens` its prompt as estimated; `sent_at_s` the instant of its last `take`. `tries` and
    `refusals` count failures that were its own; `company`, `was_pardoned`, `crash_count` and
    `is_suspect_in_flight` are for core/dispatch/suspects.py. `prefill_done`: whether the engine has
    read the prompt, as far as the call is watched; `yields`: how often it was taken back because it
    had not; `timeouts`: those that were none of its own (core/faults/timeouts.py). `part`: where
    the part of its prompt that is in flight ends, None for the whole call; see
    core/dispatch/parts.py for this and what was read by earlier parts.
    """

    run: "ChunkRun"
    index: int
    line: int
    data: bytes
    tokens: int = 0
    sent_at_s: float = 0.0
    tries: int = 0
    refusals: int = 0
    throttles: int = 0
    has_failed: bool = False
    company: int = 0
    was_pardoned: bool = False
    crash_count: int = 0
    is_suspect_in_flight: bool = False
    prefill_done: bool | None = None
    yields: int = 0
    timeouts: int = 0
    preempted: int = 0
    """How often its place was taken for another organization's request."""
    share: PlaceShare = _NOWHERE
    """Where its last `take` is counted until that call ends."""
    cut_at: tuple[str, ...] = ()
    """Names of replicas before which something ends calls as long as this one."""
    part: int | None = None
    goes_whole: bool = False
    """Its prompt cannot be sent in parts, or one of them failed."""
    tokens_read: int = 0
    """How much of its prompt earlier parts had read, at the replica `read_at`."""
    read_at: str = ""
    tokens_cached: int = 0
    """Those of the prompt that are in that engine's cache because earlier parts were computed."""
    was_part_aborted: bool = False
    """Whether the engine may have read more of it, for a part that was taken back."""

    @property
    def unread_tokens(self) -> int:
        """How much of its prompt, or of the part of it, the next call or the one in flight has the
        engine read: what no earlier part had read.
        """
        return (self.tokens if self.part is None else self.part) - self.tokens_read

    @property
    def must_run_alone(self) -> bool:
        """True when the next engine crash fails this request; it then runs alone, so that
        the crash must be its own.
        """
        return self.crash_count >= limits.CRASH_COUNT_MAX - 1

    @property
    def was_cut(self) -> bool:
        """Whether it was in flight when an engine died, and is not cleared of it."""
        return self.company > 0 or self.crash_count > 0 or self.was_pardoned

    def gave_way(self, unread_tokens: int) -> None:
        """Records that the call was taken back for live traffic before its prompt was read."""
        self.yields += 1
        if self.part is not None or self.tokens_read:
            self.was_part_aborted = True
        if self.prefill_done is None:
            # The engine has the rest of the prompt in its prefix cache.
            self.tokens = self.tokens_read + unread_tokens


class ChunkRun(msgspec.Struct, eq=False):
    """A leased chunk at work: what is pending, how many of its requests are not finished, and how
    many outcomes are finished but not committed. `is_held` until `Dispatch.remove`. `is_ending`: no
    further request starts, as its batch is paused; `given_up` are those that did not."""

    lease: ChunkLease
    key: ChunkKey
    unfinished: int = 0
    uncommitted: int = 0
    input_bytes: int = 0
    is_held: bool = True
    is_ending: bool = False
    given_up: int = 0
    pending: deque[Request] = msgspec.field(default_factory=deque)
    attached_to: str | None = None
    scope_key: tuple[str, str] = ("", "")

    def give_up(self, requests: int) -> None:
        """Counts requests of an ending chunk that another lease will have to run."""
        self.unfinished -= requests
        self.given_up += requests


def end_prefill(request: Request, replica: Replica, now_s: float) -> None:
    """Records that a first token came, or that nothing more will come;
    only the first call counts.
    """
    if request.prefill_done is False:
        request.prefill_done = True
        replica.end_prefill(request.unread_tokens, now_s)


def cannot_watch(request: Request, replica: Replica) -> None:
    """Records that the call just taken will be sent without a stream, so
    its first token is not seen.
    """
    if request.prefill_done is False:
        request.prefill_done = None
        replica.cannot_watch(request.unread_tokens, request.sent_at_s)


def goes_on_with(replica: Replica, run: ChunkRun, now_s: float) -> bool:
    """Whether that replica could send what is left of the chunk."""
    if run.lease.model not in replica.models or now_s >= replica.owned_until_s:
        return False
    scope = replica.scopes.get(run.scope_key)
    return replica.circuit.state == "closed" and (scope is None or scope.held is None)


def may_run(request: Request, replica: Replica) -> bool:
    """Whether the request may be sent there at present, as far as it goes by the request."""
    if request.tokens > replica.prompt_tokens_max:
        return False
    if replica.failing_since_s is not None:
        return False  # what has failed is no probe
    return request.company == 0 or replica.suspects.admits(request)


def is_better_elsewhere(
    request: Request, replica: Replica, peers: Iterable[Replica], now_s: float
) -> bool:
    """Whether calls as long as this one are cut at this replica and perhaps not at a peer: here it
    would never be answered, however often it is tried.
    """
    if replica.cuts.age_s is None or replica.name not in request.cut_at:
        return False
    model = request.run.lease.model
    return any(
        model in peer.models and peer.name not in request.cut_at and now_s < peer.owned_until_s
        for peer in peers
    )


def pending_by_organization(models: Iterable[Mapping[str, Iterable[ChunkRun]]]) -> dict[str, int]:
    """Counts the requests that could be sent at once, of some models' chunks by organization."""
    pending: dict[str, int] = {}
    for owners in models:
        for name, runs in owners.items():
            pending[name] = pending.get(name, 0) + sum(len(run.pending) for run in runs)
    return pending
