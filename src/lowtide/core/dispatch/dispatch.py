"""Which request goes next to which replica, and what follows from its outcome.

The pure part of a worker's dispatch. The shell (loops/dispatch/dispatch.py) adds leased chunks,
asks `take` for the next request whenever a replica has room, performs it, and passes the outcome to
`settle`. The result is a value: the request is finished, or it waits here and is tried again later.
`trial` names a scope to test by a trial call, and `trial_ended` takes the outcome of it. Nothing
here waits, reads a clock or draws a random number: `now_s` (monotonic seconds) and `draw` (uniform
in [0, 1)) are arguments.

Locality: a replica keeps taking from the chunk it is attached to; a fresh chunk is attached to the
replica that first finds nothing left; when no chunk is unattached it helps with another replica's
chunk. Among organizations, places at a replica go by turns (core/dispatch/place_turns.py), and
locality decides among the chunks of the one whose turn it is. `preempt` names calls that hold
places while others wait for their share (core/dispatch/share_preemption.py).

Whose fault: a failure counts against a request only if it was the request's own, which
core/dispatch/verdict.py finds out. Until then it costs no try. What failed goes behind what has
not, and is no probe of a failing replica.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence

from lowtide import limits
from lowtide.core.batches.chunk import ChunkKey, ChunkLease
from lowtide.core.dispatch.delayed import DelayedRequests
from lowtide.core.dispatch.parts import fits, settle_part, watched
from lowtide.core.dispatch.place_turns import PlaceTurns
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import (
    ChunkRun,
    Request,
    end_prefill,
    is_better_elsewhere,
    may_run,
    pending_by_organization,
)
from lowtide.core.dispatch.share_preemption import Claimant, SharePreemption
from lowtide.core.dispatch.stranded import StrandedChunks
from lowtide.core.dispatch.trials import begin_trial, end_trial
from lowtide.core.dispatch.verdict import Decision, Finish, OutcomeRules, TryAgain
from lowtide.core.faults.outcome import Outcome
from lowtide.core.faults.scope import Scope


class Dispatch:
    """All leased chunks of one worker, by model, and the delayed retries."""

    def __init__(self, *, attempts_max: int = limits.ATTEMPTS_MAX) -> None:
        self.runs: dict[ChunkKey, ChunkRun] = {}
        self._by_model: dict[str, dict[str, list[ChunkRun]]] = {}
        self._turns = PlaceTurns()
        self._preemption = SharePreemption()
        self._current: dict[str, ChunkRun] = {}
        self._delayed = DelayedRequests()
        self._judge = OutcomeRules(attempts_max)
        self._replicas: Sequence[Replica] = ()
        self._stranded = StrandedChunks()
        self.ready: dict[str, int] = {}
        """Requests that could be sent at once, by model."""
        self.runs_short = False
        """Some organization has little left to send, while others have more: the leasing loop looks
        for its next chunk, and resets this.
        """
        self.input_bytes = 0
        self.finished = 0
        """The number of requests with a final outcome so far."""

    def add(
        self,
        lease: ChunkLease,
        lines: Iterable[tuple[int, int, bytes]],
        tokens: Iterable[int] = (),
    ) -> ChunkRun:
        """Adds a leased chunk. `lines` are `(index, line number, bytes)` of its missing requests,
        `tokens` the estimates for their prompts, in the same order.

        A run of an earlier lease of the same chunk ends: that lease was lost unnoticed, as
        happens on a machine that slept.
        """
        self.remove(lease.key)
        run = ChunkRun(lease, lease.key, scope_key=(lease.model, lease.endpoint))
        for (index, line, data), size in zip(
            lines, itertools.chain(tokens, itertools.repeat(0)), strict=False
        ):
            run.pending.append(Request(run, index, line, data, size))
            run.input_bytes += len(data)
        run.unfinished = len(run.pending)
        self.runs[lease.key] = run
        owners = self._by_model.setdefault(lease.model, {})
        owners.setdefault(lease.organization_id, []).append(run)
        self._turns.added(lease.organization_id, lease.weight)
        self.ready[lease.model] = self.ready.get(lease.model, 0) + run.unfinished
        self.input_bytes += run.input_bytes
        return run

    def remove(self, key: ChunkKey) -> ChunkRun | None:
        """Removes a chunk that is done, lost or given back; its later outcomes are ignored."""
        run = self.runs.pop(key, None)
        if run is None:
            return None
        run.is_held = False
        self.ready[run.lease.model] -= len(run.pending)
        self.input_bytes -= run.input_bytes
        run.pending.clear()
        self._detach(run)
        return run

    def end_starting(self, run: ChunkRun) -> None:
        """Starts no further request of the chunk; `unfinished` then counts those in flight."""
        run.is_ending = True
        self.ready[run.lease.model] -= len(run.pending)
        run.give_up(len(run.pending) + self._delayed.drop(run))
        run.pending.clear()

    def forget(self, replica_name: str) -> None:
        """Forgets the replica's current chunk: it has left, or serves other models."""
        self._current.pop(replica_name, None)
        self._turns.forget(replica_name)
        self._preemption.forget(replica_name)
        for run in self.runs.values():
            if run.attached_to == replica_name:
                run.attached_to = None

    def supplied(self, models: Iterable[str], at_least: int) -> frozenset[str]:
        """Organizations of which so many requests for these models could be sent at once."""
        ready = pending_by_organization(self._by_model[m] for m in models if m in self._by_model)
        return frozenset(name for name, count in ready.items() if count >= at_least)

    def of_batches(self, batch_ids: frozenset[str]) -> list[ChunkRun]:
        return [run for run in self.runs.values() if run.key.batch_id in batch_ids]

    def stranded(self, replicas: Sequence[Replica], now_s: float) -> list[ChunkRun]:
        """Chunks that none of these replicas could go on with for a while."""
        return self._stranded.find(self.runs, self._delayed.requests, replicas, now_s)

    def take(self, replica: Replica, now_s: float) -> Request | None:
        """The next request for this replica, counted as in flight on it; None if there is none."""
        if self._delayed:
            self._wake_delayed(now_s)
        if self._judge.doubts.open:
            self._decide(now_s)
        if not replica.has_room(now_s):
            return None
        request = None
        if not self._turns.is_shared:  # the fast path: the chunk that it took from last
            run = self._current.get(replica.name)
            request = self._pop(run, replica, now_s) if run is not None else None
        if request is None and (request := self._from_any(replica, now_s)) is None:
            return None
        runs_alone = request.must_run_alone
        if (runs_alone and replica.calls) or not fits(request, replica, now_s):
            request.run.pending.appendleft(request)  # nothing else is sent until it has its turn
            return None
        lease = request.run.lease
        self.ready[lease.model] -= 1
        request.share = self._turns.took(replica.name, lease.organization_id)
        request.sent_at_s = now_s
        is_watched = watched(request, replica)
        request.prefill_done = False if is_watched else None
        if request.company:
            replica.suspects.started(request)
        unread = request.unread_tokens
        replica.started(alone=runs_alone, tokens=unread, now_s=now_s, watched=is_watched)
        return request

    def settle(
        self, request: Request, replica: Replica, outcome: Outcome, now_s: float, draw: float
    ) -> Decision:
        """Decides what an attempt's outcome means for the request and for the replica."""
        if request.prefill_done is False:
            end_prefill(request, replica, now_s)
        request.share.in_flight -= 1
        decision = self._judge.settle(request, replica, outcome, now_s, draw)
        if isinstance(decision, Finish):
            request.run.unfinished -= 1
            self.finished += 1
        elif isinstance(decision, TryAgain):
            self._delayed.delay(request, decision.at_s)
        return decision

    def settle_part(
        self,
        request: Request,
        replica: Replica,
        outcome: Outcome | None,
        now_s: float,
        draw: float,
    ) -> None:
        """Takes the end of a call that was a part of a prompt: its request goes on from there.
        `outcome` None: the prompt cannot be cut, and no call was made.
        """
        if request.prefill_done is False:
            end_prefill(request, replica, now_s)
        request.share.in_flight -= 1
        decision = settle_part(request, replica, outcome, self._judge, now_s, draw)
        if decision is None:
            self.put_back(request)
        elif isinstance(decision, TryAgain):
            self._delayed.delay(request, decision.at_s)

    def trial(self, replica: Replica, now_s: float) -> Scope | None:
        """The scope that a trial call is to be sent for now, counted as under way; None: none is
        due. Call `trial_ended` in turn.

        A request that has failed before cannot test a failing replica; a trial call can.
        """
        if not self.may_try(replica, now_s):
            return None
        if replica.failing_since_s is not None and self._scope_of_pending(replica) is None:
            replica.ask_for_trial(now_s)  # nothing else will show that it works again
        return begin_trial(replica, now_s, self._scope_of_pending)

    def may_try(self, replica: Replica, now_s: float) -> bool:
        """Whether a trial may be sent there: to replicas that batch calls may be sent to."""
        return now_s < replica.owned_until_s

    def trial_ended(
        self, replica: Replica, scope: Scope, outcome: Outcome | None, now_s: float
    ) -> None:
        """Records the outcome of a trial call; None: this process aborted it."""
        end_trial(replica, scope, outcome, now_s)

    def abandon(self, request: Request, replica: Replica, now_s: float) -> None:
        """Records that this process aborted the call (cancelled, lost,
        draining): no blame, no retry here.
        """
        end_prefill(request, replica, now_s)
        request.share.in_flight -= 1
        replica.ended()
        replica.suspects.ended(request)
        replica.circuit.abandoned()

    def put_back(self, request: Request) -> None:
        """Makes an abandoned request the next of its chunk again, with no try charged."""
        run = request.run
        if run.is_ending:
            run.give_up(1)
        elif run.is_held:
            run.pending.appendleft(request)
            self.ready[run.lease.model] += 1

    def preempt(
        self, replica: Replica, calls: Callable[[], Iterable[Request]], now_s: float
    ) -> Sequence[Request]:
        """Returns those of `calls`, the ones in flight there, that are to be abandoned and put
        back, as other organizations wait for their share of places.
        """
        is_full = replica.in_flight >= replica.places > 0 and replica.takes_calls(now_s)
        if not self._turns.is_shared or not is_full:
            self._preemption.forget(replica.name)
            return ()
        claimants = {
            name: Claimant(weight, in_flight, self._waiting(replica, name))
            for name, weight, in_flight in self._turns.standing(replica.name)
        }
        return self._preemption.preempt(replica.name, replica.places, claimants, calls, now_s)

    def spread_remaining(self, replicas: Sequence[Replica], now_s: float, *, is_dry: bool) -> None:
        """Bounds each replica to its share of what is left when the queue is dry (`is_dry`:
        nothing waits behind what is leased), so that the last requests do not all run on one
        (scheduling.md section 2(d)).
        """
        self._replicas = replicas
        able = [replica for replica in replicas if replica.takes_calls(now_s)] if is_dry else []
        for replica in replicas:
            peers = [peer for peer in able if peer.models & replica.models]
            share = None
            if len(peers) > 1 and replica.controller is not None:
                models = frozenset().union(*(peer.models for peer in peers))
                left = sum(self.ready.get(model, 0) for model in models)
                left += sum(peer.in_flight for peer in peers)
                share = max(1, -(-left // len(peers)))
            replica.limit_drain(share, now_s)

    def next_wake_s(self, replicas: Iterable[Replica], now_s: float) -> float | None:
        """When to ask `take` and `trial` again although nothing ended: a delayed retry, the end of
        a pause, a circuit's probe, a trial.

        `now_s` is when `take` last answered None: what was possible then, time will not change.
        """
        replicas = tuple(replicas)
        times = [replica.resumes_at_s for replica in replicas] if self.runs else []
        times += [
            at_s
            for replica in replicas
            for at_s in (replica.trial_at_s, *(s.trial_at_s for s in replica.scopes.values()))
        ]
        times += [self._preemption.due_at_s(replica.name) for replica in replicas]
        if self._delayed:
            times.append(self._delayed[0][0])
        return min((time for time in times if time is not None and time > now_s), default=None)

    # -- inside ------------------------------------------------------------------------------------

    def _from_any(self, replica: Replica, now_s: float) -> Request | None:
        """The next request of the organization whose turn it is: from the replica's own chunks,
        then from unattached ones, then from others'; None when there is none.

        With one organization this runs about once in 128 requests.
        """
        ranks = {replica.name: 0, None: 1}
        is_any_pending = False
        for organization_id in self._turns.order(replica.name):
            pending = self._pending(replica, organization_id)
            is_any_pending = is_any_pending or bool(pending)
            for run in sorted(pending, key=lambda run: ranks.get(run.attached_to, 2)):
                request = self._pop(run, replica, now_s)
                if request is not None:
                    self._current[replica.name] = run
                    if run.attached_to is None:
                        run.attached_to = replica.name
                    if self._turns.is_shared and len(run.pending) < limits.SUPPLY_LOW:
                        self._check_supply(pending)
                    return request
        if is_any_pending and replica.failing_since_s is not None:
            replica.ask_for_trial(now_s)
        return None

    def _pending(self, replica: Replica, organization_id: str) -> list[ChunkRun]:
        """The organization's chunks that have something to send to that replica."""
        return [
            run
            for model in replica.models
            for run in self._by_model.get(model, {}).get(organization_id, ())
            if run.pending
        ]

    def _waiting(self, replica: Replica, organization_id: str) -> int:
        """Returns how many of its requests could be sent there, if a place were free."""
        return sum(
            len(run.pending)
            for run in self._pending(replica, organization_id)
            if (scope := replica.scopes.get(run.scope_key)) is None or not scope.is_closed
        )

    def _check_supply(self, runs: Iterable[ChunkRun]) -> None:
        """Sets `runs_short` when the organization has few requests left;
        `runs` are all of its chunks.
        """
        left = sum(len(run.pending) for run in runs)
        if left == limits.SUPPLY_LOW - 1 or not left:  # once on its way down, and at its end
            self.runs_short = True

    def _scope_of_pending(self, replica: Replica) -> Scope | None:
        for model in replica.models:
            for runs in self._by_model.get(model, {}).values():
                for run in runs:
                    if run.pending:
                        return replica.scope(run.scope_key)
        return None

    def _pop(self, run: ChunkRun, replica: Replica, now_s: float) -> Request | None:
        """The chunk's next request that may run on the replica at present."""
        if not run.pending:
            return None
        scope = replica.scopes.get(run.scope_key)
        if scope is not None and scope.is_closed:
            return None
        request = run.pending.popleft()
        if not request.has_failed and request.tokens <= replica.prompt_tokens_max:
            return request
        run.pending.appendleft(request)
        return self._search(run, replica, now_s)

    def _search(self, run: ChunkRun, replica: Replica, now_s: float) -> Request | None:
        """The first request that may run on the replica; those before it go behind the others."""
        for _ in range(len(run.pending)):
            request = run.pending.popleft()
            if may_run(request, replica) and not (
                request.cut_at and is_better_elsewhere(request, replica, self._replicas, now_s)
            ):
                return request
            run.pending.append(request)
        return None

    def _decide(self, now_s: float) -> None:
        """Releases the requests of which it is now known whose fault their failure was."""
        for request, decision in self._judge.decided(now_s):
            self._delayed.delay(request, decision.at_s)
        self._wake_delayed(now_s)

    def _wake_delayed(self, now_s: float) -> None:
        for request in self._delayed.take_due(now_s):
            run = request.run
            if run.is_held:
                run.pending.append(request)  # behind what has not failed
                self.ready[run.lease.model] += 1

    def _detach(self, run: ChunkRun) -> None:
        model, organization_id = run.lease.model, run.lease.organization_id
        owners = self._by_model[model]
        owners[organization_id].remove(run)
        if not owners[organization_id]:
            del owners[organization_id]
        if not owners:
            del self._by_model[model]
        self._turns.removed(organization_id)
