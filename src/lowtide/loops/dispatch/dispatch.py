"""Keeps every replica's window full: send, settle, pass on, send the next.

The shell around `core.dispatch.dispatch.Dispatch`. Each place in a window is a slot, a task that
performs one request after another until none is left. Final outcomes go to `Outcomes`; what a
commit answers (lost, stopped, committed) comes back through `loops.dispatch.commit.LeaseHolder`.

Cancellation is two steps: stop claiming, then stop working. Cancelling a slot closes its upstream
connection, which is what makes an engine stop generating.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial

import msgspec
import structlog

from lowtide import limits
from lowtide.core.accounts.charged_usage import UsageMeter
from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.batches.segment import Finished, Slice
from lowtide.core.dispatch.parts import token_came
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import ChunkRun, Request, end_prefill
from lowtide.core.dispatch.verdict import Decision, Finish
from lowtide.core.execution.records import CommitReceipt
from lowtide.core.faults.outcome import Failed, Outcome, Rejected, Succeeded
from lowtide.core.reporting.batch_watch import BatchWatch
from lowtide.core.reporting.tally import Tallies, Tally
from lowtide.loops.dispatch.attempt import (
    OwnershipLostError,
    Upstream,
    attempt,
    attempt_part,
    render,
)
from lowtide.loops.dispatch.commit import Leases
from lowtide.loops.dispatch.leasing import Leasing
from lowtide.loops.dispatch.outcomes import Outcomes
from lowtide.loops.dispatch.slots import Slots, WindowSlot
from lowtide.loops.dispatch.trials import Trials
from lowtide.ports.clock import Clock

log = structlog.get_logger(__name__)

OnAnswer = Callable[[str, bytes, int, float], None]
"""Called for each success: its model, input line, reported prompt tokens, monotonic seconds."""


class Dispatcher:
    """Sends requests to replicas and keeps each replica's window full; one per worker."""

    name = "dispatch"

    def __init__(
        self,
        leasing: Leasing,
        outcomes: Outcomes,
        clock: Clock,
        wake: Callable[[], None],
        draw: Callable[[], float],
        *,
        on_answer: OnAnswer = lambda *_: None,
        meter: UsageMeter | None = None,
    ) -> None:
        """`leasing` brings the core that it supplies, and the upstreams, which may change at run
        time. `wake` asks for a tick; `draw` gives uniform numbers in [0, 1) for back-off."""
        self._clock = clock
        self._draw = draw
        self._upstreams = leasing.upstreams
        self._outcomes = outcomes
        self._wake = wake
        self._on_answer = on_answer
        self._meter = meter or UsageMeter()
        self._core = core = leasing.core
        self._leasing = leasing
        self._slots = Slots()
        self._trials = Trials(core, clock, wake)
        self._claiming = asyncio.Lock()
        self._released: list[tuple[ChunkKey, int]] = []
        self._draining = self._has_unserved = False
        self.tallies = Tallies()
        self.batch_watch = BatchWatch()

    def announce(self) -> None:
        """Asks for a claim: new work may wait in the store."""
        self._leasing.announce()
        self._wake()

    async def tick(self, now: datetime) -> datetime | None:
        """Fills the windows, leases chunks where they could run dry, and fills again."""
        if self._has_unserved:
            self._give_back_unserved()
        self._give_back_stranded()
        now_s = self._fill()  # first, because retries are due even when nothing can be claimed
        self._preempt(now_s)
        came = False
        async with self._claiming:
            if not self._draining and not self._backed_up():
                came = await self._leasing.claim(now, now_s)
                if came:
                    self._leasing.record_claim_time(self._clock.monotonic() - now_s)
                elif self._leasing.waits_for_commit:
                    self._outcomes.wake()
        if self._draining or self._backed_up():
            return None  # a commit wakes us, or nothing does
        self._core.spread_remaining(
            [upstream.replica for upstream in self._upstreams],
            now_s,
            is_dry=now_s < self._leasing.dry_until_s,
        )
        now_s = self._fill() if came else now_s
        return now if came else self._next_tick(now_s)

    async def drain(self, within_s: float) -> None:
        """Stops claiming, lets calls in flight run for so long, then aborts them and gives all
        chunks back. The caller runs one last commit afterwards.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._claiming:
                pass  # what a claim under way brings is given back below
        await self._slots.wait(within_s)
        await asyncio.gather(self._slots.cancel_all(), self._trials.aclose())
        for run in list(self._core.runs.values()):
            self._give_back(run)

    def release_replicas(self, replica_names: frozenset[str], models: frozenset[str]) -> None:
        """Stops work on replicas that this worker has lost; those it still has serve `models`.

        Calls still in flight on the lost ones are aborted, and their chunks given back, as is every
        chunk that none of this worker's replicas can work on.
        """
        self._trials.take_back(replica_names)
        held = self._core.runs
        stranded = self._slots.chunks(replica_names)
        stranded |= {key for key, run in held.items() if run.lease.model not in models}
        for key in stranded & held.keys():
            self._give_back(held[key])
        if stranded:
            self._outcomes.wake()

    def replicas_changed(self, touched: Iterable[str]) -> None:
        """Takes note of replicas that have come, gone, or serve other models. Chunks that no
        replica here can work on any more are given back, each when its last call has ended.
        """
        for name in touched:
            self._core.forget(name)
        self._has_unserved = True
        self.announce()

    # -- what the control loop asks and tells ------------------------------------------------------

    def calls_on(self, replica_name: str) -> list[Request]:
        """The requests in flight on that replica."""
        return self._slots.calls_on(replica_name)

    def revoke(self, replica_name: str, requests: Sequence[Request]) -> None:
        """Aborts these calls; each request is the next of its chunk again, with no try charged."""
        self._slots.revoke(replica_name, requests)

    def take_back(self, replica_name: str) -> None:
        """Aborts all calls there, trial calls as well; requests are next of their chunks again."""
        self._trials.take_back({replica_name})
        self.revoke(replica_name, self.calls_on(replica_name))

    # -- Holdings: what the committer asks and tells -----------------------------------------------

    @property
    def leased_batches(self) -> frozenset[str]:
        """The batches that this worker has chunks of."""
        return frozenset(key.batch_id for key in self._core.runs)

    def held(self) -> tuple[tuple[ChunkKey, int], ...]:
        return tuple((run.key, run.lease.token) for run in self._core.runs.values())

    def take_released(self) -> tuple[tuple[ChunkKey, int], ...]:
        released, self._released = self._released, []
        return (*released, *self._leasing.pop_unread_leases())

    def committed(self, receipt: CommitReceipt, slices: tuple[Slice, ...], shown: Leases) -> None:
        now_s = self._clock.monotonic()
        for piece in slices:
            self.batch_watch.settled(piece.key.batch_id, now_s)
            run = self._core.runs.get(piece.key)
            if run is not None and run.lease.token == piece.token:
                run.uncommitted -= piece.count
        for key, token in shown:
            run = self._core.runs.get(key)
            if key in receipt.lost and (run is None or run.lease.token <= token):
                self._drop(key)
        for run in self._core.of_batches(receipt.stopped):
            self._give_back(run)
        for run in self._core.of_batches(receipt.paused):
            self._core.end_starting(run)
        for run in list(self._core.runs.values()):
            if run.unfinished == 0 and not run.uncommitted:
                self._give_back(run) if run.given_up else self._drop(run.key)
        if receipt.stopped:
            self._outcomes.wake()
        self._wake()

    # -- sending -----------------------------------------------------------------------------------

    def _fill(self) -> float:
        """Starts a slot for every free place that has a request waiting. Returns the
        instant of this.
        """
        now_s = self._clock.monotonic()
        if self._draining or self._backed_up():
            return now_s
        for upstream in self._upstreams:
            while (request := self._core.take(upstream.replica, now_s)) is not None:
                slot = WindowSlot(request, upstream.replica.name)
                task = asyncio.get_running_loop().create_task(self._run(upstream, slot))
                self._slots.add(task, slot)
                task.add_done_callback(partial(self._slot_ended, upstream))
            self._trials.start(upstream, now_s)
        return now_s

    def _preempt(self, now_s: float) -> None:
        """Aborts calls that hold places for which other organizations have waited for long."""
        for upstream in self._upstreams:
            name = upstream.replica.name
            calls = partial(self._slots.calls_on, name)
            chosen = self._core.preempt(upstream.replica, calls, now_s)
            for request in chosen:
                self.tallies.of(name, request.run.lease.model).add_preempted()
            if chosen:
                self._slots.revoke(name, chosen)

    async def _run(self, upstream: Upstream, slot: WindowSlot) -> None:
        """Runs one place in a window: one request after another, until there is none."""
        request: Request | None = slot.request
        now_s = self._clock.monotonic()
        while request is not None:
            slot.request, slot.in_flight = request, True
            if now_s >= upstream.replica.owned_until_s:
                slot.revoked = True  # the process stood still before it could send
                return
            try:
                if request.part is not None:
                    part = await attempt_part(upstream, request, self._clock.monotonic)
                else:
                    custom_id, outcome = await attempt(
                        upstream, request, self._token_came, self._clock.monotonic
                    )
            except OwnershipLostError:
                slot.revoked = True
                return
            slot.in_flight = False
            now_s = self._clock.monotonic()
            if request.part is not None:
                self._core.settle_part(request, upstream.replica, part, now_s, self._draw())
            else:
                self._settle(upstream, request, custom_id, outcome, now_s)
            if self._draining or self._backed_up():
                return
            request = self._core.take(upstream.replica, now_s)
            if request is None and upstream.replica.is_paced(now_s):
                self._wake()  # the next prompt has a time of its own

    def _slot_ended(self, upstream: Upstream, task: asyncio.Task[None]) -> None:
        """Frees the slot; here and not in `_run`, because a task that is cancelled before its first
        step never runs.
        """
        slot = self._slots.pop(task)
        if slot.in_flight:
            self._core.abandon(slot.request, upstream.replica, self._clock.monotonic())
            if slot.revoked:
                self._core.put_back(slot.request)
            self._wake()  # its place is free
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("slot.failed", batch=slot.request.run.key.batch_id, exc_info=error)
            self._give_back(slot.request.run)

    def _token_came(self, upstream: Upstream, request: Request) -> None:
        """Records a token of a watched call: the next prompt, or part of one, may follow."""
        now_s = self._clock.monotonic()
        if request.prefill_done is False:
            end_prefill(request, upstream.replica, now_s)
            self._wake()
        if token_came(request, upstream.replica, now_s):
            self._fill()

    def _settle(
        self, upstream: Upstream, request: Request, custom_id: str, outcome: Outcome, now_s: float
    ) -> None:
        replica, lease = upstream.replica, request.run.lease
        places = replica.places
        tally = self.tallies.of(replica.name, lease.model)
        if isinstance(outcome, Succeeded):
            outcome = self._metered(request, outcome, replica, tally)
        decision = self._core.settle(request, replica, outcome, now_s, self._draw())
        if not isinstance(outcome, Succeeded):
            self._note_failure(tally, request, outcome, decision, now_s)
        if replica.places > places:
            self._wake()  # the window grew: more may be sent at once
        if not isinstance(decision, Finish):
            self._wake()  # a retry has a time of its own
        elif request.run.is_held:
            self._finish(request, render(request, custom_id, decision.outcome), tally, now_s)
        if self._leasing.needs_claim(lease.model, now_s):
            self._wake()

    def _finish(self, request: Request, finished: Finished, tally: Tally, now_s: float) -> None:
        """Adds the final outcome of a request to the next commit."""
        run = request.run
        run.uncommitted += 1
        self._outcomes.add(run.key, run.lease.token, finished)
        if finished.ok:
            tally.add_success(usage := finished.usage)
            tokens = 0 if usage.unreported else usage.input_tokens
            self._on_answer(run.lease.model, request.data, tokens, now_s)
        if run.unfinished == 0 and not any(r.unfinished for r in self._core.runs.values()):
            self._outcomes.wake()  # nothing is left to wait for, so the interval need not end

    def _note_failure(
        self,
        tally: Tally,
        request: Request,
        outcome: Outcome,
        decision: Decision,
        now_s: float,
    ) -> None:
        """Counts what is no good answer, and remembers whose request it was."""
        is_retried = not isinstance(decision, Finish)
        run = request.run
        tally.add_failure(outcome, is_retried=is_retried)
        if isinstance(outcome, Failed) and is_retried:
            self.batch_watch.failed(run.key.batch_id, f"{outcome.kind}: {outcome.detail}", now_s)
        elif isinstance(decision, Finish) and isinstance(decision.outcome, Rejected):
            final = decision.outcome
            words = f"{final.code}: {final.message}"
            self.batch_watch.rejected(run.key.batch_id, final.code, words, now_s)

    def _metered(
        self, request: Request, outcome: Succeeded, replica: Replica, tally: Tally
    ) -> Succeeded:
        """The success with the usage that it is charged as."""
        lease = request.run.lease
        usage = self._meter.charged(
            lease.endpoint, request.data, request.tokens, outcome.body, outcome.usage
        )
        if usage.unreported and not tally.unreported:
            # Once: an engine that does so does so always.
            log.warning("usage.unreported", replica=replica.name, model=lease.model)
        return outcome if usage is outcome.usage else msgspec.structs.replace(outcome, usage=usage)

    def _backed_up(self) -> bool:
        """Whether results cannot be committed fast enough: no more is sent until a
        commit succeeds.
        """
        return self._outcomes.uncommitted_bytes >= limits.UNCOMMITTED_BYTES_MAX

    def _next_tick(self, now_s: float) -> datetime | None:
        retry_s = self._core.next_wake_s([u.replica for u in self._upstreams], now_s)
        poll_s = max(self._leasing.dry_until_s, now_s + limits.TICK_S_MIN)
        if self._leasing.dry_until_s < now_s:
            poll_s = min(now_s + limits.IDLE_POLL_S, self._leasing.seeks_at_s)
        due_s = poll_s if retry_s is None else min(poll_s, retry_s)
        delay_s = max(due_s - now_s, limits.TICK_S_MIN)
        return self._clock.now() + timedelta(seconds=delay_s)

    # -- letting go --------------------------------------------------------------------------------

    def _give_back_stranded(self) -> None:
        """Gives back chunks that this worker cannot go on with: another may."""
        replicas = [upstream.replica for upstream in self._upstreams]
        stranded = self._core.stranded(replicas, self._clock.monotonic())
        at_work = self._slots.chunks() if stranded else ()
        idle = [run for run in stranded if run.key not in at_work]
        for run in idle:
            self._give_back(run)
        if idle:
            log.info("chunks.given_back", chunks=len(idle))
            self._outcomes.wake()

    def _give_back_unserved(self) -> None:
        models = frozenset().union(*(each.replica.models for each in self._upstreams))
        unserved = [run for run in self._core.runs.values() if run.lease.model not in models]
        at_work = self._slots.chunks()
        self._has_unserved = bool(unserved)
        for run in unserved:
            if run.key not in at_work:
                self._give_back(run)
        if unserved:
            self._outcomes.wake()

    def _give_back(self, run: ChunkRun) -> None:
        """Aborts what is in flight of the chunk and releases its lease with the next commit."""
        self._drop(run.key)
        self._released.append((run.key, run.lease.token))

    def _drop(self, key: ChunkKey) -> None:
        """Removes a chunk that this worker has lost, and cancels its calls."""
        self._core.remove(key)
        self._slots.cancel(key)
