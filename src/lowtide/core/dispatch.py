"""Which request goes next to which replica, and what follows from its outcome.

The pure heart of a worker. The shell (loops/dispatch.py) adds leased chunks, asks `take` for the
next request whenever a replica has room, performs it, and hands the outcome to `settle`; the
answer is a value: finish the request, or try it again later. Nothing here waits, reads a clock or
draws a random number: `now_s` (monotonic seconds) and `draw` (uniform in [0, 1)) are arguments.

Locality: a replica keeps taking from the chunk it is attached to; a fresh chunk is attached to the
replica that first finds nothing left; when no chunk is unattached it helps with somebody else's.

Suspects: when a connection breaks with the request unanswered, every request in flight may be the
one that killed the engine. They all become suspects, and a replica runs at most one suspect at a
time, so that the next break most likely has that culprit. It gets a strike; the one that decides,
number `STRIKES_MAX`, is given only to a request that was alone on its replica. Then it goes to the
error file.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from lowtide import limits
from lowtide.core.chunk import ChunkKey, ChunkLease
from lowtide.core.outcome import (
    Interrupted,
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    Transient,
    final_failure,
)
from lowtide.core.replica import Replica
from lowtide.core.streamed_answer import STREAMED_ENDPOINTS


class Request(msgspec.Struct, eq=False):
    """One request of a leased chunk. `data` is its line's bytes; `index` its bit in the chunk;
    `tokens` its prompt as estimated; `sent_at_s` the instant of its last `take`. `is_read`: whether
    the engine has read the prompt, as far as the call is watched; `yields`: how often it was taken
    back because it had not; `timeouts`: those that were none of its own (core/timeouts.py).
    """

    run: "ChunkRun"
    index: int
    line: int
    data: bytes
    tokens: int = 0
    sent_at_s: float = 0.0
    tries: int = 0
    throttles: int = 0
    strikes: int = 0
    suspect: bool = False
    is_read: bool | None = None
    yields: int = 0
    timeouts: int = 0

    @property
    def on_trial(self) -> bool:
        """One more strike ends it: it runs alone, so that nobody is condemned for a neighbour."""
        return self.strikes >= limits.STRIKES_MAX - 1


class ChunkRun(msgspec.Struct, eq=False):
    """A leased chunk at work: what is pending, and how many of its requests are not finished."""

    lease: ChunkLease
    unfinished: int
    input_bytes: int
    pending: deque[Request] = msgspec.field(default_factory=deque)
    attached_to: str | None = None

    @property
    def key(self) -> ChunkKey:
        return self.lease.key


class Finish(msgspec.Struct, frozen=True):
    """The request is settled with this final outcome."""

    outcome: Succeeded | Rejected


class TryAgain(msgspec.Struct, frozen=True):
    """The request waits in the core until `at_s`; nothing is to be recorded."""

    at_s: float


Decision = Finish | TryAgain


class Dispatch:
    """All leased chunks of one worker, by model, and the delayed retries."""

    def __init__(self, *, attempts_max: int = limits.ATTEMPTS_MAX) -> None:
        self._attempts_max = attempts_max
        self.runs: dict[ChunkKey, ChunkRun] = {}
        self._by_model: dict[str, list[ChunkRun]] = {}
        self._current: dict[str, ChunkRun] = {}
        self._delayed: list[tuple[float, int, Request]] = []
        self._order = itertools.count()
        self.ready: dict[str, int] = {}
        """Requests that could be sent at once, by model."""
        self.input_bytes = 0

    def add(
        self,
        lease: ChunkLease,
        lines: Iterable[tuple[int, int, bytes]],
        tokens: Iterable[int] = (),
    ) -> ChunkRun:
        """A chunk was leased; `lines` are `(index, line number, bytes)` of its missing requests,
        `tokens` the estimates for their prompts, in the same order.

        A run of an earlier lease of the same chunk ends: that lease was lost without our knowing,
        as happens to a machine that slept.
        """
        self.remove(lease.key)
        run = ChunkRun(lease, 0, 0)
        for (index, line, data), size in zip(
            lines, itertools.chain(tokens, itertools.repeat(0)), strict=False
        ):
            run.pending.append(Request(run, index, line, data, size))
            run.input_bytes += len(data)
        run.unfinished = len(run.pending)
        self.runs[lease.key] = run
        self._by_model.setdefault(lease.model, []).append(run)
        self.ready[lease.model] = self.ready.get(lease.model, 0) + run.unfinished
        self.input_bytes += run.input_bytes
        return run

    def remove(self, key: ChunkKey) -> ChunkRun | None:
        """The chunk is done, lost or given back; outcomes still to come for it are ignored."""
        run = self.runs.pop(key, None)
        if run is None:
            return None
        self.ready[run.lease.model] -= len(run.pending)
        self.input_bytes -= run.input_bytes
        run.pending.clear()
        self._detach(run)
        return run

    def forget(self, replica_name: str) -> None:
        """The replica has left, or serves other models: its next request is chosen afresh."""
        self._current.pop(replica_name, None)
        for run in self.runs.values():
            if run.attached_to == replica_name:
                run.attached_to = None

    def of_batches(self, batch_ids: frozenset[str]) -> list[ChunkRun]:
        return [run for run in self.runs.values() if run.key.batch_id in batch_ids]

    def take(self, replica: Replica, now_s: float) -> Request | None:
        """The next request for this replica, counted as in flight on it; None if there is none."""
        self._wake_delayed(now_s)
        if not replica.has_room(now_s):
            return None
        allow_suspect = replica.suspects_in_flight == 0
        request = self._from_current(replica, allow_suspect)
        if request is None:
            request = self._from_any(replica, allow_suspect)
        if request is None:
            return None
        on_trial = request.on_trial
        if (on_trial and replica.in_flight) or not replica.takes_prompt(request.tokens, now_s):
            request.run.pending.appendleft(request)  # nothing else is sent until it has its turn
            return None
        self.ready[request.run.lease.model] -= 1
        request.sent_at_s = now_s
        watched = replica.watches and request.run.lease.endpoint in STREAMED_ENDPOINTS
        request.is_read = False if watched else None
        replica.started(
            suspect=request.suspect,
            alone=on_trial,
            tokens=request.tokens,
            now_s=now_s,
            watched=watched,
        )
        return request

    def settle(
        self, request: Request, replica: Replica, outcome: Outcome, now_s: float, draw: float
    ) -> Decision:
        """What an attempt's outcome means for the request and for the replica."""
        prompt_read(request, replica, now_s)
        replica.ended(suspect=request.suspect)
        match outcome:
            case Succeeded(usage=usage):
                replica.answered(now_s)
                replica.learn(usage, request.tokens, request.sent_at_s, now_s)
                return self._finish(request, outcome)
            case Rejected():
                replica.answered(now_s)
                return self._finish(request, outcome)
            case Throttled(retry_after_s=after):
                replica.throttled(now_s, after)
                request.throttles += 1
                return self._again(request, now_s, draw, request.throttles, after)
            case Interrupted(detail=detail):
                replica.circuit.failed(now_s, detail)
                return self._again(request, now_s, 0.0, 0, None)
            case Transient(code="timeout") if not replica.timeouts.is_own(
                request.tokens, request.sent_at_s, request.timeouts
            ):
                return self._after_our_queue(request, replica, outcome, now_s, draw)
            case Transient(detail=detail):
                replica.circuit.failed(now_s, detail)
                return self._after_transient(request, replica, outcome, now_s, draw)

    def abandon(self, request: Request, replica: Replica, now_s: float) -> None:
        """We took the call back ourselves (cancelled, lost, draining): no blame, no retry here."""
        prompt_read(request, replica, now_s)
        replica.ended(suspect=request.suspect)
        replica.circuit.abandoned()

    def put_back(self, request: Request) -> None:
        """An abandoned request is the next of its chunk again, with no try charged."""
        run = request.run
        if self.runs.get(run.key) is run:
            run.pending.appendleft(request)
            self.ready[run.lease.model] += 1

    def guide(self, replicas: Sequence[Replica], now_s: float, *, is_dry: bool) -> None:
        """`is_dry`: nothing waits behind what is leased. Then no replica takes more than its share
        of that, so that the last requests do not all run on one (scheduling.md section 2(d)).
        """
        able = [replica for replica in replicas if replica.takes_calls(now_s)] if is_dry else []
        for replica in replicas:
            peers = [peer for peer in able if peer.models & replica.models]
            replica.guided = None
            if len(peers) > 1 and replica.controller is not None:
                models = frozenset().union(*(peer.models for peer in peers))
                left = sum(self.ready.get(model, 0) for model in models)
                left += sum(peer.in_flight for peer in peers)
                replica.guided = max(1, -(-left // len(peers)))
            replica.resize(now_s)

    def next_wake_s(self, replicas: Iterable[Replica], now_s: float) -> float | None:
        """When to ask `take` again although nothing ended: a delayed retry, the end of a pause, a
        circuit's probe.

        `now_s` is when `take` last answered None: what was possible then, time will not change.
        """
        times = [replica.resumes_at_s for replica in replicas] if self.runs else []
        if self._delayed:
            times.append(self._delayed[0][0])
        return min((time for time in times if time is not None and time > now_s), default=None)

    # -- inside ------------------------------------------------------------------------------------

    def _from_current(self, replica: Replica, allow_suspect: bool) -> Request | None:
        """The fast path: the chunk that this replica took from last."""
        run = self._current.get(replica.name)
        return _pop(run, replica, allow_suspect) if run is not None else None

    def _from_any(self, replica: Replica, allow_suspect: bool) -> Request | None:
        """Its own other chunks, then unattached, then anybody's; about once in 128 requests."""
        ranks = {replica.name: 0, None: 1}
        usable = (run for model in replica.models for run in self._by_model.get(model, ()))
        pending = [run for run in usable if run.pending]
        for run in sorted(pending, key=lambda run: ranks.get(run.attached_to, 2)):
            request = _pop(run, replica, allow_suspect)
            if request is not None:
                self._current[replica.name] = run
                if run.attached_to is None:
                    run.attached_to = replica.name
                return request
        return None

    def _after_transient(
        self, request: Request, replica: Replica, outcome: Transient, now_s: float, draw: float
    ) -> Decision:
        if outcome.engine_died:
            if request.suspect:
                request.strikes += 1
            request.suspect = True
            if request.strikes < limits.STRIKES_MAX:
                return self._again(request, now_s, draw, request.strikes, outcome.retry_after_s)
            return self._finish(
                request, Rejected("engine_crash", f"the engine died of it: {outcome.detail}")
            )
        request.tries += 1
        if request.tries >= self._attempts_max:
            return self._finish(request, final_failure(outcome))
        step = request.tries if replica.budget.spend() else 64
        return self._again(request, now_s, draw, step, outcome.retry_after_s)

    def _after_our_queue(
        self, request: Request, replica: Replica, outcome: Transient, now_s: float, draw: float
    ) -> Decision:
        """It waited behind our own calls: no try is charged, and the window is smaller from now on.
        A replica that answered nobody meanwhile may not be well.
        """
        if replica.timeouts.is_silent_since(request.sent_at_s):
            replica.circuit.failed(now_s, outcome.detail)
        request.timeouts += 1
        replica.timed_out(request.sent_at_s, now_s)
        return self._again(request, now_s, draw, request.timeouts, None)

    def _finish(self, request: Request, outcome: Succeeded | Rejected) -> Finish:
        request.run.unfinished -= 1
        return Finish(outcome)

    def _again(
        self, request: Request, now_s: float, draw: float, step: int, after_s: float | None
    ) -> TryAgain:
        at_s = now_s + max(backoff_s(step, draw), min(after_s or 0.0, limits.BACKOFF_CAP_S))
        heapq.heappush(self._delayed, (at_s, next(self._order), request))
        return TryAgain(at_s)

    def _wake_delayed(self, now_s: float) -> None:
        while self._delayed and self._delayed[0][0] <= now_s:
            request = heapq.heappop(self._delayed)[2]
            run = request.run
            if run.key in self.runs and self.runs[run.key] is run:
                run.pending.appendleft(request)
                self.ready[run.lease.model] += 1

    def _detach(self, run: ChunkRun) -> None:
        runs = self._by_model[run.lease.model]
        runs.remove(run)
        if not runs:
            del self._by_model[run.lease.model]


def prompt_read(request: Request, replica: Replica, now_s: float) -> None:
    """A first token came, or nothing more is to come; only the first word of it counts."""
    if request.is_read is False:
        request.is_read = True
        replica.prompt_read(request.tokens, now_s)


def cannot_watch(request: Request, replica: Replica) -> None:
    """The call that was just taken is to be sent without anybody seeing its first token."""
    if request.is_read is False:
        request.is_read = None
        replica.cannot_watch(request.tokens, request.sent_at_s)


def _pop(run: ChunkRun, replica: Replica, allow_suspect: bool) -> Request | None:
    """The chunk's next request, passing over suspects where one is in flight already, and prompts
    that are too long for the replica at present.
    """
    tokens_max = replica.prompt_tokens_max
    for _ in range(len(run.pending)):
        request = run.pending.popleft()
        if (allow_suspect or not request.suspect) and request.tokens <= tokens_max:
            return request
        run.pending.append(request)
    return None


def backoff_s(step: int, draw: float) -> float:
    """Full jitter: uniform in [0, base * 2^step], capped. Step 0 means at once."""
    if step <= 0:
        return 0.0
    return draw * min(limits.BACKOFF_CAP_S, limits.BACKOFF_BASE_S * 2.0 ** min(step, 32))
